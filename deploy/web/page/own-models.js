// Models of a person's own: a new one takes the place of the one before, which would stay in memory.

const OWN = /^(.*-own)\d+$/; // the keys that `ModelChoice` gives them

/**
 * Releases the models that another one of the same choice replaces; they are out of the map at once.
 *
 * @param {Map<string, object | Promise<object>>} models By their keys: what has a `session`, or a promise of it.
 * @param {string} key Of the new model.
 */
export async function forgetOwn(models, key) {
  const place = key.match(OWN)?.[1];
  if (place === undefined) return;
  const replaced = [...models].filter(([other]) => other.match(OWN)?.[1] === place);
  for (const [other] of replaced) models.delete(other);
  for (const { value } of await Promise.allSettled(replaced.map(([, model]) => model))) await value?.session.release();
}
