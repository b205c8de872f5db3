import assert from "node:assert/strict";
import { test } from "node:test";

import { withNews, withPage } from "../pages.js";

const kind = { idOf: ({ id }) => id, timeOf: ({ at }) => at };
const list = (...times) => times.map((at) => ({ id: `m${at}`, at }));
const ids = (entries) => entries.map(({ id }) => id).join(" ");

test("news of an entry changes it where it is, or puts it where it belongs", () => {
  const held = list(9, 7, 5);
  const changed = withNews(held, { id: "m7", at: 7, heard: true }, kind, false);
  assert.deepEqual([ids(changed), changed[1].heard, held[1].heard], ["m9 m7 m5", true, undefined]);
  assert.equal(ids(withNews(held, { id: "new", at: 10 }, kind, false)), "new m9 m7 m5");
  assert.equal(ids(withNews(held, { id: "late", at: 6 }, kind, false)), "m9 m7 late m5");
});

test("what is older than all that was loaded comes with its own page", () => {
  const held = list(9, 7);
  const old = { id: "m3", at: 3 };
  assert.equal(ids(withNews(held, old, kind, false)), "m9 m7");
  assert.equal(ids(withNews(held, old, kind, true)), "m9 m7 m3");
  assert.equal(ids(withNews([], old, kind, true)), "m3");
});

test("a page brings nothing twice", () => {
  assert.equal(ids(withPage(list(9, 7, 5), list(5, 4, 3), kind)), "m9 m7 m5 m4 m3");
  assert.equal(ids(withPage([], list(2, 1), kind)), "m2 m1");
});
