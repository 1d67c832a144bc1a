// Drawing lots, and what guessing would have reached.

function lot(count) {
  const limit = Math.floor(2 ** 32 / count) * count; // beyond it some lots would be likelier
  const draws = new Uint32Array(1);
  do crypto.getRandomValues(draws); while (draws[0] >= limit);
  return draws[0] % count;
}

function shuffled(items) {
  const left = [...items];
  return items.map(() => left.splice(lot(left.length), 1)[0]);
}

/** Probability that guessing yields at least so many right answers. */
function guessing(right, count) {
  let ways = 1; // of `index` right answers
  let sum = 0;
  for (let index = 0; index <= count; index += 1) {
    if (index >= right) sum += ways;
    ways = ways * (count - index) / (index + 1);
  }
  return sum / 2 ** count;
}
