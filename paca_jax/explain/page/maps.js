"use strict";
/* The maps of the page: from text to weights, from weights to colors. Nothing here knows the page's elements. */

// Viridis at ten even steps: readable with every kind of color vision, and lighter throughout from 0 to 1.
const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];

const COLORS = (() => {
  const stops = VIRIDIS.map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const colors = new Uint8ClampedArray(256 * 3);
  for (let level = 0; level < 256; level++) {
    const position = (level / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(position), stops.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      colors[3 * level + channel] = stops[low][channel] + (position - low) * (stops[low + 1][channel] - stops[low][channel]);
    }
  }
  return colors;
})();

async function inflate(text) {
  const compressed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/* Returns the weights that bytes stand for: their squares, each run of `length` divided by its sum. */
function weightsOf(bytes, length) {
  const weights = new Float32Array(bytes.length);
  for (let start = 0; start < bytes.length; start += length) {
    let sum = 0;
    for (let at = start; at < start + length; at++) sum += bytes[at] * bytes[at];
    for (let at = start; at < start + length; at++) weights[at] = (bytes[at] * bytes[at]) / sum;
  }
  return weights;
}

/* The maps of one block in one picture. */
class BlockMaps {
  constructor(shape, attention, assignment) {
    Object.assign(this, shape); // heads, rows, columns, clusters, patches, side
    this.cells = this.rows * this.columns;
    this.attention = attention; // (heads, cells, clusters); sums to one over the clusters
    this.assignment = assignment; // (clusters, cells); sums to one over the cells
  }

  static async decode(shape, assignmentText) {
    const [attention, assignment] = await Promise.all([inflate(shape.bytes), inflate(assignmentText)]);
    return new BlockMaps(shape, weightsOf(attention, shape.clusters), weightsOf(assignment, shape.rows * shape.columns));
  }

  /* Returns how much a cell reads from each cluster; head -1 is the mean over heads. */
  readBy(cell, head) {
    const weights = new Float32Array(this.clusters);
    const heads = head < 0 ? [...Array(this.heads).keys()] : [head];
    for (const each of heads) {
      const start = (each * this.cells + cell) * this.clusters;
      for (let cluster = 0; cluster < this.clusters; cluster++)
        weights[cluster] += this.attention[start + cluster] / heads.length;
    }
    return weights;
  }

  /* Returns how much each cell reads from a cluster. */
  readersOf(cluster, head) {
    const weights = new Float32Array(this.cells);
    const heads = head < 0 ? [...Array(this.heads).keys()] : [head];
    for (const each of heads) {
      for (let cell = 0; cell < this.cells; cell++) {
        weights[cell] += this.attention[(each * this.cells + cell) * this.clusters + cluster] / heads.length;
      }
    }
    return weights;
  }

  /* Returns what a cluster gathers from each cell. */
  gatheredBy(cluster) {
    return this.assignment.subarray(cluster * this.cells, (cluster + 1) * this.cells);
  }

  /* Returns what a cell draws from each cell through the clusters: attention times assignment. */
  composed(cell, head) {
    const read = this.readBy(cell, head);
    const weights = new Float32Array(this.cells);
    for (let cluster = 0; cluster < this.clusters; cluster++) {
      const gathered = this.gatheredBy(cluster);
      for (let each = 0; each < this.cells; each++) weights[each] += read[cluster] * gathered[each];
    }
    return weights;
  }
}

/* Draws weights with one pixel per cell, scaled to their largest; `opacity` is that of weight 0. */
function drawMap(canvas, weights, columns, opacity) {
  const rows = weights.length / columns;
  if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const largest = Math.max(largestOf(weights), 1e-30);
  for (let cell = 0; cell < weights.length; cell++) {
    const value = weights[cell] / largest;
    const level = Math.round(255 * value);
    for (let channel = 0; channel < 3; channel++) image.data[4 * cell + channel] = COLORS[3 * level + channel];
    image.data[4 * cell + 3] = 255 * (opacity + (0.92 - opacity) * Math.min(2 * value, 1));
  }
  context.putImageData(image, 0, 0);
}

function largestOf(weights) {
  let largest = 0;
  for (const weight of weights) if (weight > largest) largest = weight;
  return largest;
}

function indexOfLargest(weights) {
  let best = 0;
  for (let at = 1; at < weights.length; at++) if (weights[at] > weights[best]) best = at;
  return best;
}
