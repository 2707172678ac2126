// Starts workers under the page's own Content-Security-Policy.

/**
 * Starts a worker by a blob: one of a network URL would not inherit the policy, and could ask other origins.
 *
 * @param {string} file Its module, beside this one.
 * @returns {Worker}
 */
export function startWorker(file) {
  const code = `import ${JSON.stringify(new URL(file, import.meta.url).href)};`;
  return new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
}
