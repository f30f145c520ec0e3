// From what a person types to tensors of the Open Inference Protocol: lists of values, with the shape that they fill.
// Nothing of a page in here (tests/unit/orchestrator/console/test_tensors.py).

import { plural } from "./format.js";

/** A request of the Open Inference Protocol from what stands in the fields, a list of values each. */
export function requestOf(inputs, texts) {
  const tensors = inputs.map(({ name, datatype, shape }, index) => {
    const values = parsed(name, texts[index]);
    const data = values.flat(Infinity);
    return { name, shape: shapeOf(name, shape, values, data.length), datatype, data };
  });
  return JSON.stringify({ inputs: tensors });
}

function parsed(name, text) {
  let values;
  try {
    values = JSON.parse(text);
  } catch (error) {
    throw new Error(`${name}: this is not JSON (${error.message}); write a list, such as [1, 2]`);
  }
  return Array.isArray(values) ? values : [values];
}

/** Nested lists say their shape. A flat one fills the shape of the metadata: its first open length is what is left. */
function shapeOf(name, wanted, values, count) {
  const nested = [];
  for (let level = values; Array.isArray(level); level = level[0]) nested.push(level.length);
  if (nested.length === wanted.length) return checked(name, nested, wanted, count);
  const known = product(wanted.filter((length) => length !== -1));
  const open = wanted.indexOf(-1);
  if (open === -1 ? count !== known : count % known !== 0) {
    const taken = open === -1 ? known : `a multiple of ${known}`;
    throw new Error(`${name}: ${plural(count, "value")}; its shape ${JSON.stringify(wanted)} takes ${taken}`);
  }
  return wanted.map((length, index) => (length !== -1 ? length : index === open ? count / known : 1));
}

function checked(name, shape, wanted, count) {
  if (product(shape) !== count) {
    throw new Error(`${name}: its rows have different lengths; write as many values in each`);
  }
  if (!shape.every((length, index) => [-1, length].includes(wanted[index]))) {
    const [is, takes] = [shape, wanted].map((each) => JSON.stringify(each));
    throw new Error(`${name}: its shape is ${is}; the model takes ${takes}, where -1 is any length`);
  }
  return shape;
}

const product = (lengths) => lengths.reduce((result, length) => result * length, 1);
