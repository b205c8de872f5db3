import assert from "node:assert/strict";
import { test } from "node:test";

import { Emitter } from "../events.js";

test("a handler is called until it unsubscribes", () => {
  const emitter = new Emitter();
  const heard = [];
  const off = emitter.on("changed", (value) => heard.push(value));
  emitter.emit("changed", 1);
  off();
  off();
  emitter.emit("changed", 2);
  assert.deepEqual(heard, [1]);
});

test("one handler may subscribe twice and leave once", () => {
  const emitter = new Emitter();
  let calls = 0;
  const handler = () => calls++;
  emitter.on("changed", handler);
  emitter.on("changed", handler)();
  emitter.emit("changed");
  assert.equal(calls, 1);
});

test("who unsubscribes during an event does not shift the others", () => {
  const emitter = new Emitter();
  const heard = [];
  const off = emitter.on("changed", () => (heard.push("first"), off()));
  emitter.on("changed", () => heard.push("second"));
  emitter.emit("changed");
  assert.deepEqual(heard, ["first", "second"]);
});

test("a handler that throws stops no other, and its error is not swallowed", (t) => {
  const emitter = new Emitter();
  const heard = [];
  const tasks = [];
  t.mock.method(globalThis, "queueMicrotask", (task) => tasks.push(task));
  emitter.on("changed", () => {
    throw new Error("a page's mistake");
  });
  emitter.on("changed", () => heard.push("second"));
  emitter.emit("changed");
  assert.deepEqual(heard, ["second"]);
  assert.throws(tasks[0], /a page's mistake/);
});
