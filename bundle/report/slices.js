// Input and result in three linked planes. Positions are millimetres from the corner of the field of view, towards
// right (axis 0), anterior (1) and superior (2).
const data = JSON.parse(document.getElementById("data").textContent);
const AXES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] }; // across, up, through
const NAMES = [["L", "R"], ["P", "A"], ["I", "S"]]; // at the low and the high end of each axis
const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const viewer = $("#viewer"), main = data.layers.after;
const begin = axis => main.start[axis] - main.step[axis] / 2;
const extent = axis => main.shape[axis] * main.step[axis];
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

const initial = () => ({
  mode: "wipe", plane: "all", overlay: "", split: 0.5, zoom: 1, opacity: 0.75, voxels: false, neurological: false,
  cross: true, held: false,
  at: [0.4, 0.47, 0.52].map((share, axis) => main.start[axis] + main.step[axis] * Math.floor(main.shape[axis] * share)),
});
let state = initial();
let centre = [...state.at]; // what a magnified view is centred on

function slice(layer, plane, index) { // canvas with one voxel per pixel, across to the right, up downwards
  const [across, up, through] = AXES[plane];
  layer.cache ??= {};
  const key = plane + index;
  if (layer.cache[plane]?.key === key) return layer.cache[plane].canvas;
  const canvas = layer.cache[plane]?.canvas ?? document.createElement("canvas");
  canvas.width = layer.shape[across];
  canvas.height = layer.shape[up];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  const [nx, ny, nz] = layer.shape;
  const place = z => {
    const perSheet = layer.columns * layer.rows, k = z % perSheet;
    return [layer.bitmaps[Math.floor(z / perSheet)], (k % layer.columns) * layer.tile[0],
      Math.floor(k / layer.columns) * layer.tile[1]];
  };
  if (through === 2) {
    const [sheet, x, y] = place(index);
    context.drawImage(sheet, x, y, nx, ny, 0, 0, nx, ny);
  } else if (through === 1) {
    for (let z = 0; z < nz; z++) {
      const [sheet, x, y] = place(z);
      context.drawImage(sheet, x, y + index, nx, 1, 0, z, nx, 1);
    }
  } else {
    context.setTransform(0, 1, 1, 0, 0, 0); // a column of the sheet becomes a row
    for (let z = 0; z < nz; z++) {
      const [sheet, x, y] = place(z);
      context.drawImage(sheet, x + index, y, 1, ny, z, 0, 1, ny);
    }
  }
  layer.cache[plane] = { key, canvas };
  return canvas;
}

function paint(context, layer, plane, smooth, blend) {
  const [across, up, through] = AXES[plane];
  const place = (state.at[through] - layer.start[through]) / layer.step[through];
  const last = layer.shape[through] - 1, floor = clamp(Math.floor(place), 0, last);
  const rest = clamp(place - floor, 0, 1);
  const draw = index => context.drawImage(slice(layer, plane, clamp(index, 0, last)),
    layer.start[across] - layer.step[across] / 2, layer.start[up] - layer.step[up] / 2,
    layer.shape[across] * layer.step[across], layer.shape[up] * layer.step[up]);
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  if (!blend || !smooth) return draw(Math.round(place));
  draw(floor); // between two slices of the input: both, as linear interpolation has them
  if (rest > 0.01 && floor < last) {
    context.save();
    context.globalAlpha = rest;
    draw(floor + 1);
    context.restore();
  }
}
