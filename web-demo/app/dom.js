/**
 * A tiny helper to build DOM. Text always becomes text nodes, never markup: names come from other people.
 */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * What `h` understands: `class`, `data` (data-attributes), `on` (listeners); everything else is an attribute,
 * left out when it is `false`, `null` or `undefined`.
 *
 * @typedef {{ class?: string, data?: Record<string, string | undefined>, on?: Record<string, (event: any) => void> } & Record<string, any>} Props
 */

/**
 * Creates an element.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Props | null} [props]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  if (props) applyProps(element, props);
  element.append(...children.filter(isShown).map(asNode));
  return element;
}

/**
 * Creates an SVG element.
 *
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...Node} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * Sets an element's text only when it differs, so that live regions and text selections are left in peace.
 *
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Sets an attribute only when it differs; `null` removes it.
 *
 * @param {Element} element
 * @param {string} name
 * @param {string | null} value
 */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Shows `items` as children of `parent`, one element per key. Elements are kept and moved rather than made again, so
 * focus survives a list that changes while somebody tabs through it.
 *
 * @template Item
 * @param {Element} parent
 * @param {Item[]} items
 * @param {(item: Item) => string} keyOf
 * @param {(item: Item) => { element: Element, update(item: Item): void, close?(): void }} create `close` is called when the item has gone
 */
export function keyed(parent, items, keyOf, create) {
  /** @type {Map<string, { element: Element, update(item: Item): void, close?(): void }>} */
  const rows = rowsByParent.get(parent) ?? new Map();
  rowsByParent.set(parent, rows);

  const keys = new Set(items.map(keyOf));
  for (const [key, row] of rows) {
    if (!keys.has(key)) {
      row.element.remove();
      row.close?.();
      rows.delete(key);
    }
  }

  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let row = rows.get(key);
    if (!row) {
      row = create(item);
      rows.set(key, row);
    }
    row.update(item);
    if (row.element === place) place = place.nextElementSibling;
    else parent.insertBefore(row.element, place);
  }
}

/** @type {WeakMap<Element, Map<string, any>>} */
const rowsByParent = new WeakMap();

/**
 * @param {HTMLElement} element
 * @param {Props} props
 */
function applyProps(element, props) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "on") {
      for (const [type, listener] of Object.entries(value)) {
        element.addEventListener(type, /** @type {EventListener} */ (listener));
      }
    } else element.setAttribute(name, value === true ? "" : String(value));
  }
}

/**
 * @param {Child} child
 * @returns {child is Node | string | number}
 */
function isShown(child) {
  return child !== null && child !== undefined && child !== false;
}

/** @param {Node | string | number} child */
function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}
