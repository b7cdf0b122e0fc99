// Which documents are watched by a stream of their own. A browser has few
// connections to a server, so only some of many documents are: those that come
// first. Whoever waits is looked after by polling, and has the next free place.

/** How many streams are open at once. */
export const MOST_STREAMS = 4;

/** Keeps streams open for the first of the documents that are wanted. */
export class Watcher {
  #open;
  #streams = new Map();
  #lost = new Set();
  #wanted = [];

  /** open(id, lost) opens a stream and answers a function that closes it; lost says that it has ended for good. */
  constructor(open) {
    this.#open = open;
  }

  /** Watches these documents, the first ones by streams. */
  want(ids) {
    this.#wanted = ids;
    const wanted = new Set(ids);
    for (const [id, close] of this.#streams) {
      if (wanted.has(id)) continue;
      this.#streams.delete(id);
      close();
    }
    for (const id of this.#lost) if (!wanted.has(id)) this.#lost.delete(id);
    for (const id of ids) {
      if (this.#streams.size >= MOST_STREAMS) break;
      if (this.#streams.has(id) || this.#lost.has(id)) continue;
      this.#streams.set(id, this.#open(id, () => this.#end(id)));
    }
  }

  /** The documents that are wanted and have no stream. */
  get waiting() {
    return this.#wanted.filter((id) => !this.#streams.has(id));
  }

  /** Closes all streams. */
  close() {
    this.want([]);
  }

  #end(id) {
    if (!this.#streams.delete(id)) return;
    this.#lost.add(id);
    this.want(this.#wanted);
  }
}
