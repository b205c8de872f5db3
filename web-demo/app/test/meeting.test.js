import assert from "node:assert/strict";
import { test } from "node:test";

import { GAP, grid, gridCapacity, promote, spotlight } from "../meeting/layout.js";
import { asksForEncryption, meetingName } from "../meeting/name.js";

const STAGES = [
  { width: 390, height: 600 },
  { width: 844, height: 300 },
  { width: 1280, height: 600 },
  { width: 1900, height: 900 },
];

test("tiles of a grid never overlap, never leave the stage, and are all of one size", () => {
  for (const stage of STAGES) {
    for (let count = 1; count <= 60; count += 1) {
      const boxes = grid(gridCapacity(count, stage), stage);
      for (const box of boxes) {
        assert.ok(
          box.x >= 0 && box.y >= 0 && box.x + box.width <= stage.width + 1 && box.y + box.height <= stage.height + 1,
          where(stage, count, box),
        );
        assert.deepEqual([box.width, box.height], [boxes[0].width, boxes[0].height]);
        const shape = box.width / box.height;
        assert.ok(shape > 0.73 && shape < 1.82, where(stage, count, box));
      }
      for (const [index, a] of boxes.entries())
        for (const b of boxes.slice(index + 1)) assert.ok(!overlap(a, b), where(stage, count, a, b));
    }
  }
});

test("a desktop shows 49 at once, a phone as many as can be recognised", () => {
  assert.equal(gridCapacity(49, { width: 1280, height: 600 }), 49);
  assert.equal(gridCapacity(500, { width: 3000, height: 2000 }), 49);
  const onPhone = gridCapacity(49, { width: 374, height: 600 });
  assert.ok(onPhone >= 12 && onPhone <= 24, String(onPhone));
  assert.ok(grid(onPhone, { width: 374, height: 600 })[0].width >= 116);
  assert.equal(gridCapacity(3, { width: 40, height: 40 }), 1);
});

test("a few people fill the stage the way it lies", () => {
  const [first, second] = grid(2, { width: 390, height: 600 });
  assert.ok(first.x === second.x && second.y > first.y, "above each other on a phone");
  const [left, right] = grid(2, { width: 1280, height: 600 });
  assert.ok(left.y === right.y && right.x > left.x, "beside each other on a desktop");
  const three = grid(3, { width: 1000, height: 800 });
  assert.equal(three[2].x + three[2].width / 2, 500);
});

test("beside a large tile the strip takes as many as fit", () => {
  for (const stage of STAGES) {
    for (const others of [0, 1, 5, 40]) {
      const { main, strip } = spotlight(others, stage);
      assert.ok(strip.length <= others && (others === 0 || strip.length >= 1));
      for (const [index, box] of strip.entries()) {
        assert.ok(!overlap(main, box), where(stage, others, main, box));
        assert.ok(strip.slice(index + 1).every((other) => !overlap(box, other)));
      }
      if (others === 0) assert.deepEqual([main.width, main.height], [stage.width, stage.height]);
    }
  }
});

test("who speaks comes to the first page and takes the place of the most silent one there", () => {
  const spokeAt = new Map([
    ["a", 3],
    ["b", 1],
    ["c", 2],
    ["e", 9],
  ]);
  assert.deepEqual(promote(["a", "b", "c", "d", "e"], 3, ["e"], spokeAt), ["a", "e", "c", "d", "b"]);
  assert.deepEqual(promote(["a", "b", "c", "d", "e"], 3, ["a"], spokeAt), ["a", "b", "c", "d", "e"]);
  assert.deepEqual(promote(["a", "b"], 1, ["b", "a"], spokeAt), ["b", "a"]);
  assert.deepEqual(promote(["a"], 3, ["stranger"], spokeAt), ["a"]);
});

test("a meeting is found by its name in any spelling, and by its link", () => {
  for (const [typed, name] of [
    ["Weekly", "weekly"],
    ["  Team Café #4! ", "team-cafe-4"],
    ["https://calls.example.com/?room=board_1", "board_1"],
    ["https://calls.example.com/?relay=1&room=Board", "board"],
    ["x".repeat(80), "x".repeat(64)],
    ["…", null],
    ["", null],
  ]) {
    assert.equal(meetingName(typed), name, typed);
  }
});

test("a link says whether only an encrypted meeting will do", () => {
  for (const [link, isSo] of [
    ["https://calls.example.com/?room=board&encrypted=1", true],
    [" https://calls.example.com/?room=board&encrypted=1\n", true],
    ["https://calls.example.com/?room=board", false],
    ["board&encrypted=1", false],
  ]) {
    assert.equal(asksForEncryption(link), isSo, link);
  }
});

function overlap(a, b) {
  const apart = (from, size) => a[from] + a[size] + GAP / 2 <= b[from] || b[from] + b[size] + GAP / 2 <= a[from];
  return !apart("x", "width") && !apart("y", "height");
}

function where(stage, ...what) {
  return `${stage.width}x${stage.height}: ${JSON.stringify(what)}`;
}
