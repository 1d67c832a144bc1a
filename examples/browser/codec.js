// Run graphs of `codectool export hac FOLDER` with onnxruntime-web, in a browser or in Node.js.
// docs/reference/onnx.md describes their inputs, outputs and metadata.

const FILL = -1n; // a code that was not transmitted

/** One step graph with its state: `run` takes the next chunk. */
class Step {
  constructor(ort, session, metadata) {
    Object.assign(this, { ort, session, metadata });
    this.reset();
  }

  /** Go back to the start of a signal. */
  reset() {
    this.state = {};
    for (const { input, shape } of this.metadata.step.states) {
      const size = shape.reduce((a, b) => a * b, 1);
      this.state[input] = new this.ort.Tensor("float32", new Float32Array(size), shape);
    }
  }

  async run(name, tensor, output) {
    const results = await this.session.run({ [name]: tensor, ...this.state });
    for (const state of this.metadata.step.states) this.state[state.input] = results[state.output];
    return results[output].data;
  }
}

/** Samples to token ids, chunk by chunk. */
export class Encoder extends Step {
  /** Encode samples (Float32Array), a multiple of the hop length; return ids (Array of numbers). */
  async push(samples) {
    const audio = new this.ort.Tensor("float32", samples, [1, 1, samples.length]);
    return Array.from(await this.run("audio", audio, "codes"), Number);
  }

  /** Encode a whole signal of any length. */
  async encode(samples) {
    const { hop_length: hop, extra_frames: extra, step } = this.metadata;
    const frames = Math.ceil(samples.length / hop) + extra;
    const padded = new Float32Array(Math.ceil(frames / step.chunk_frames) * step.chunk_frames * hop);
    padded.set(samples);
    this.reset();
    const ids = [];
    for (let start = 0; start < padded.length; start += step.chunk_frames * hop)
      ids.push(...(await this.push(padded.subarray(start, start + step.chunk_frames * hop))));
    return ids.slice(0, frames);
  }
}

/** Token ids to samples, chunk by chunk. */
export class Decoder extends Step {
  reset() {
    super.reset();
    this.skip = this.metadata.step.delay_frames * this.metadata.hop_length;
  }

  /** Decode ids (any iterable of integers); return the samples that are ready (Float32Array). */
  async push(ids) {
    const codes = BigInt64Array.from(ids, BigInt);
    if (!codes.length) return new Float32Array(0);
    const tensor = new this.ort.Tensor("int64", codes, [1, 1, codes.length]);
    const samples = await this.run("codes", tensor, "audio");
    const dropped = Math.min(this.skip, samples.length);
    this.skip -= dropped;
    return samples.slice(dropped);
  }

  /** End the signal; return the rest of its samples. */
  flush() {
    return this.push(new Array(this.metadata.step.delay_frames).fill(FILL));
  }

  /** Decode all ids of a signal. */
  async decode(ids) {
    this.reset();
    const parts = [];
    for (let start = 0; start < ids.length; start += this.metadata.step.chunk_frames)
      parts.push(await this.push(ids.slice(start, start + this.metadata.step.chunk_frames)));
    parts.push(await this.flush());
    const wave = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let position = 0;
    for (const part of parts) {
      wave.set(part, position);
      position += part.length;
    }
    return wave;
  }
}

/**
 * Load `encoder_step.onnx` or `decoder_step.onnx`.
 *
 * @param ort the module onnxruntime-web
 * @param graph the file, a Uint8Array
 */
export async function load(ort, graph) {
  const metadata = readMetadata(graph);
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  return new (metadata.part === "encoder_step" ? Encoder : Decoder)(ort, session, metadata);
}

/** Return what codectool wrote into a graph: onnxruntime-web has no function for it. */
export function readMetadata(graph) {
  const text = new TextDecoder();
  let position = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = graph[position++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (position < graph.length) {
    const tag = varint();
    if (tag % 8 === 0) {
      varint();
      continue;
    }
    const end = varint() + position;
    if (tag === 14 * 8 + 2) { // metadata_props: a key and a value
      const entry = {};
      while (position < end) {
        const field = varint() >> 3;
        const length = varint();
        entry[field] = text.decode(graph.subarray(position, position + length));
        position += length;
      }
      if (entry[1] === "codectool") return JSON.parse(entry[2]);
    }
    position = end;
  }
  throw new Error("not a graph that codectool exported");
}
