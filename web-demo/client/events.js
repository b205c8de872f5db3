/**
 * A small emitter with typed events: `Events` maps a name to the arguments of its handlers.
 * @template {{[Name in keyof Events]: any[]}} Events
 */
export class Emitter {
  /** @type {Map<keyof Events, Set<{handler: (...args: any[]) => void}>>} */
  #subscriptions = new Map();

  /**
   * Calls `handler` at every `event` until the returned function is called.
   * @template {keyof Events} Name
   * @param {Name} event
   * @param {(...args: Events[Name]) => void} handler
   * @returns {() => void}
   */
  on(event, handler) {
    const subscriptions = this.#subscriptions.get(event) ?? new Set();
    // An object of its own for each subscription, so that one handler may subscribe twice.
    const subscription = { handler };
    this.#subscriptions.set(event, subscriptions.add(subscription));
    return () => void subscriptions.delete(subscription);
  }

  /**
   * @internal
   * @template {keyof Events} Name
   * @param {Name} event
   * @param {Events[Name]} args
   */
  emit(event, ...args) {
    for (const { handler } of [...(this.#subscriptions.get(event) ?? [])]) {
      try {
        handler(...args);
      } catch (error) {
        // A page's mistake must neither stop the other handlers nor go unseen.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
