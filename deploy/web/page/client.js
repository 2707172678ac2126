// The page's side of the worker: one task at a time, each a promise.

import { startWorker } from "./start-worker.js";

/** What went wrong in a task; `kind` is "user", "cancelled" or "other". */
export class TaskError extends Error {
  constructor({ kind, message }) {
    super(message);
    this.kind = kind;
  }
}

export class Client {
  #worker = startWorker("./worker.js");
  #waiting = new Map();
  #last = Promise.resolve();
  #count = 0;
  #broken = null;

  constructor() {
    this.#worker.onmessage = ({ data: { id, progress, result, error } }) => {
      const { resolve, reject, report } = this.#waiting.get(id);
      if (progress !== undefined) return report?.(progress);
      this.#waiting.delete(id);
      return error ? reject(new TaskError(error)) : resolve(result);
    };
    this.#worker.onerror = (event) => {
      // A worker that does not load says so once, whether or not a task waits for it.
      this.#broken = new TaskError({ kind: "other", message: event.message || "its files are incomplete" });
      for (const { reject } of this.#waiting.values()) reject(this.#broken);
      this.#waiting.clear();
    };
  }

  /**
   * Runs a task after those before it.
   *
   * @param {string} task A name in the worker's `TASKS`.
   * @param {object} given Its arguments.
   * @param {(progress: number) => void} [report] Called with the share that is done, in [0, 1].
   */
  call(task, given, report) {
    const run = () =>
      new Promise((resolve, reject) => {
        if (this.#broken) return reject(this.#broken);
        const id = this.#count++;
        this.#waiting.set(id, { resolve, reject, report });
        this.#worker.postMessage({ id, task, ...given });
      });
    const result = this.#last.then(run);
    this.#last = result.catch(() => {});
    return result;
  }

  /** Ends the separation in progress, which then fails with a `TaskError` of the kind "cancelled". */
  cancel() {
    this.#worker.postMessage({ task: "cancel" });
  }
}
