/**
 * Where each tile of a meeting lies: pure functions of numbers, so that the page never has to ask the browser.
 */

/** @typedef {{ x: number, y: number, width: number, height: number }} Box in CSS pixels, from the top left of the stage */
/** @typedef {{ width: number, height: number }} Size */

export const GAP = 8;
/** The most tiles on one page, however large the screen. */
const TILES_MAX = 49;
/** Smaller than this nobody is recognised. */
const TILE_WIDTH_MIN = 116;
/** Shapes a tile may have: as wide as a camera, or narrower; on an upright stage as tall as a phone held upright. */
const ASPECT_MAX = 16 / 9;
const ASPECT_MIN = 4 / 3;
const ASPECT_MIN_UPRIGHT = 3 / 4;
/** A stage wider than this has its strip at the side. */
const SIDE_ASPECT = 1.25;

/**
 * How many of `count` tiles a page of the grid shows: as many as stay large enough.
 *
 * @param {number} count
 * @param {Size} stage
 * @returns {number} at least 1
 */
export function gridCapacity(count, stage) {
  let fits = Math.min(count, TILES_MAX);
  while (fits > 1 && bestGrid(fits, stage).width < TILE_WIDTH_MIN) fits -= 1;
  return Math.max(1, fits);
}

/**
 * Tiles of one size, as large as they get; a last row that is not full is centred.
 *
 * @param {number} count at most what {@link gridCapacity} says
 * @param {Size} stage
 * @returns {Box[]}
 */
export function grid(count, stage) {
  if (count === 0) return [];
  const { columns, width, height } = bestGrid(count, stage);
  const rows = Math.ceil(count / columns);
  const top = (stage.height - rows * height - (rows - 1) * GAP) / 2;
  return Array.from({ length: count }, (_, index) => {
    const row = Math.floor(index / columns);
    const inRow = Math.min(columns, count - row * columns);
    const left = (stage.width - inRow * width - (inRow - 1) * GAP) / 2;
    const x = left + (index - row * columns) * (width + GAP);
    return { x: Math.round(x), y: Math.round(top + row * (height + GAP)), width, height };
  });
}

/**
 * One large tile, and a strip of the others at its side or, on an upright screen, below.
 *
 * @param {number} others
 * @param {Size} stage
 * @returns {{ main: Box, strip: Box[] }} as many boxes in the strip as fit, at most `others`
 */
export function spotlight(others, stage) {
  const whole = { x: 0, y: 0, width: stage.width, height: stage.height };
  if (others === 0) return { main: whole, strip: [] };

  const isSide = stage.width / stage.height > SIDE_ASPECT;
  const width = isSide ? clamp(stage.width * 0.18, 112, 232) : clamp(stage.width * 0.3, 96, 180);
  const height = isSide ? (width * 9) / 16 : (width * 3) / 4;
  const [along, size] = isSide ? [stage.height, height] : [stage.width, width];
  const fits = Math.max(1, Math.min(others, Math.floor((along + GAP) / (size + GAP))));
  const start = Math.max(0, (along - fits * size - (fits - 1) * GAP) / 2);
  const strip = Array.from({ length: fits }, (_, index) => {
    const offset = Math.round(start + index * (size + GAP));
    const box = isSide ? { x: stage.width - width, y: offset } : { x: offset, y: stage.height - height };
    return { x: Math.round(box.x), y: Math.round(box.y), width: Math.round(width), height: Math.round(height) };
  });
  const main = isSide
    ? { ...whole, width: Math.floor(stage.width - width - GAP) }
    : { ...whole, height: Math.floor(stage.height - height - GAP) };
  return { main, strip };
}

/**
 * Brings who speaks onto the first page: each trades places with the one there who was silent the longest. Everybody else
 * stays where they are, for a grid that jumps cannot be watched.
 *
 * @param {string[]} order
 * @param {number} shown how many of them the first page has
 * @param {string[]} speakers the loudest first
 * @param {Map<string, number>} spokeAt when each spoke last
 * @returns {string[]}
 */
export function promote(order, shown, speakers, spokeAt) {
  const result = [...order];
  const brought = speakers.slice(0, shown);
  for (const speaker of brought) {
    const from = result.indexOf(speaker);
    if (from < shown) continue;
    const silent = result.slice(0, shown).filter((id) => !brought.includes(id));
    const longest = silent.reduce((a, b) => ((spokeAt.get(b) ?? 0) <= (spokeAt.get(a) ?? 0) ? b : a), silent[0]);
    const to = result.indexOf(longest);
    if (to >= 0) [result[from], result[to]] = [result[to], result[from]];
  }
  return result;
}

/**
 * The number of columns that makes `count` tiles largest.
 *
 * @param {number} count
 * @param {Size} stage
 */
function bestGrid(count, stage) {
  const aspectMin = stage.width > stage.height ? ASPECT_MIN : ASPECT_MIN_UPRIGHT;
  let best = { columns: 1, width: 0, height: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    let width = (stage.width - (columns - 1) * GAP) / columns;
    let height = (stage.height - (rows - 1) * GAP) / rows;
    if (width <= 0 || height <= 0) continue;
    if (width / height > ASPECT_MAX) width = height * ASPECT_MAX;
    else if (width / height < aspectMin) height = width / aspectMin;
    [width, height] = [Math.floor(width), Math.floor(height)];
    if (width * height > best.width * best.height) best = { columns, width, height };
  }
  return best;
}

/** @param {number} value @param {number} least @param {number} most */
function clamp(value, least, most) {
  return Math.min(most, Math.max(least, value));
}
