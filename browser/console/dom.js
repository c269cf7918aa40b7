/** The few things that all views do with the page. Text is set as text, and nowhere as HTML. */

import { short, whole } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * The element with this id, of the page itself.
 *
 * @template {HTMLElement} [Kind=HTMLElement]
 * @param {string} id
 * @returns {Kind}
 */
export function at(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no ${id}`);
  return /** @type {Kind} */ (found);
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} [classes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, classes = "", ...children) {
  const made = document.createElement(tag);
  if (classes !== "") made.className = classes;
  made.append(...children);
  return made;
}

/**
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function draw(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

/**
 * Sets a text, if it is another one.
 *
 * @param {Element} element
 * @param {string} text
 */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Shows what comes from the mesh: made visible and cut, with all of it as a tooltip.
 *
 * @param {HTMLElement} element
 * @param {string} text
 * @param {number} [most] characters
 */
export function show(element, text, most) {
  const shown = short(text, most);
  say(element, shown);
  const all = whole(text);
  const title = all === shown ? "" : all;
  if (element.title !== title) element.title = title;
}

/**
 * @param {Element} element
 * @param {Record<string, string | number | boolean | null>} attributes null and false: not there
 */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value))
      element.setAttribute(name, String(value));
  }
}
