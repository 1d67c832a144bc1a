// Random choices, and the binomial test of the blind test.

/** Return a uniformly distributed integer below `count`. */
function randomBelow(count) {
  const limit = Math.floor(2 ** 32 / count) * count; // larger values would be biased
  const value = new Uint32Array(1);
  do crypto.getRandomValues(value); while (value[0] >= limit);
  return value[0] % count;
}

function shuffled(items) {
  const rest = [...items];
  return items.map(() => rest.splice(randomBelow(rest.length), 1)[0]);
}

/** Probability of at least `correct` of `count` correct answers by guessing. */
function guessingProbability(correct, count) {
  let ways = 1; // number of ways to give exactly `index` correct answers
  let sum = 0;
  for (let index = 0; index <= count; index += 1) {
    if (index >= correct) sum += ways;
    ways = ways * (count - index) / (index + 1);
  }
  return sum / 2 ** count;
}
