// What a view shows of the state, and where the views lie in the window.

const figures = all(".plane").map(element => ({
  element, plane: element.dataset.plane, slider: $(".slice", element), output: $("output", element),
  views: all(".view", element).map(view => ({ element: view, plane: element.dataset.plane, side: view.dataset.side,
    image: $(".image", view), over: $(".over", view), handle: $(".handle", view), left: $(".left", view),
    right: $(".right", view) })),
}));

const flipped = axis => !state.neurological && axis < 2; // radiological: right and front of the patient on the left
function geometry(view) { // pixels per millimetre, and the way between the two
  const [across, up] = AXES[view.plane], ratio = window.devicePixelRatio || 1;
  const width = Math.round(view.element.clientWidth * ratio), height = Math.round(view.element.clientHeight * ratio);
  const scale = state.zoom * Math.min(width / extent(across), height / extent(up));
  const middle = axis => state.zoom > 1 ? centre[axis] : begin(axis) + extent(axis) / 2;
  const sx = flipped(across) ? -scale : scale;
  return { width, height, ratio, scale, a: sx, d: -scale, e: width / 2 - sx * middle(across),
    f: height / 2 + scale * middle(up) };
}

function shown(view) { // [input until, result from], shares of the width
  if (state.held) return view.side === "before" || state.mode !== "side" ? 1 : 0;
  if (state.mode === "side") return view.side === "before" ? 1 : 0;
  return { before: 1, after: 0, wipe: state.split }[state.mode];
}

function render(view) {
  const g = geometry(view), edge = Math.round(shown(view) * g.width);
  for (const canvas of [view.image, view.over]) {
    if (canvas.width !== g.width || canvas.height !== g.height) [canvas.width, canvas.height] = [g.width, g.height];
    canvas.getContext("2d").setTransform(1, 0, 0, 1, 0, 0);
    canvas.getContext("2d").clearRect(0, 0, g.width, g.height);
  }
  const clipped = (context, from, to, work) => {
    if (to <= from) return;
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, g.height);
    context.clip();
    context.setTransform(g.a, 0, 0, g.d, g.e, g.f);
    work();
    context.restore();
  };
  const image = view.image.getContext("2d"), over = view.over.getContext("2d");
  clipped(image, 0, edge, () => paint(image, data.layers.before, view.plane, !state.voxels, true));
  clipped(image, edge, g.width, () => paint(image, main, view.plane, !state.voxels, false));
  const map = data.layers[state.overlay];
  if (map) clipped(over, edge, g.width, () => {
    over.globalAlpha = state.opacity;
    paint(over, map, view.plane, Boolean(map.smooth), false);
  });
  if (state.cross) cross(over, view, g);
  const wiping = state.mode === "wipe" && !state.held;
  view.element.classList.toggle("wiping", wiping);
  view.handle.style.left = `${100 * state.split}%`;
  view.left.textContent = edge > 0 ? "Input" : "";
  view.right.textContent = edge < g.width ? "Result" : "";
}

function cross(context, view, g) {
  const [across, up] = AXES[view.plane], gap = 9 * g.ratio;
  const x = g.a * state.at[across] + g.e, y = g.d * state.at[up] + g.f;
  context.strokeStyle = "#5fd3ffb0";
  context.lineWidth = g.ratio;
  context.beginPath();
  for (const [fx, fy, tx, ty] of [[0, y, x - gap, y], [x + gap, y, g.width, y], [x, 0, x, y - gap],
    [x, y + gap, x, g.height]]) {
    context.moveTo(fx, fy);
    context.lineTo(tx, ty);
  }
  context.stroke();
}

let waiting = false;
function update() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const figure of figures) {
      const through = AXES[figure.plane][2], index = nearest(through);
      figure.slider.value = index;
      figure.output.textContent = `${index + 1} / ${main.shape[through]}`;
      figure.slider.setAttribute("aria-valuetext", `slice ${index + 1} of ${main.shape[through]}`);
      for (const view of figure.views) if (view.element.offsetParent) render(view);
    }
  });
}

const nearest = axis => clamp(Math.round((state.at[axis] - main.start[axis]) / main.step[axis]), 0, main.shape[axis] - 1);
function step(axis, count) {
  const index = clamp(nearest(axis) + count, 0, main.shape[axis] - 1);
  state.at[axis] = main.start[axis] + index * main.step[axis];
  update();
}

// Layout: one scale for all planes, and all of it in the window where that is possible

function layout() {
  const box = $(".planes"), narrow = viewer.clientWidth < 720, side = state.mode === "side", one = state.plane !== "all";
  const visible = figures.filter(f => !one || f.plane === state.plane);
  for (const f of figures) {
    f.element.hidden = !visible.includes(f);
    for (const view of f.views) view.element.hidden = view.side === "before" && !side;
  }
  $(".wipe").classList.toggle("off", state.mode !== "wipe");
  const across = f => extent(AXES[f.plane][0]), up = f => extent(AXES[f.plane][1]);
  const tallest = Math.max(...visible.map(up));
  const above = box.getBoundingClientRect().top + window.scrollY;
  const room = Math.max(260, window.innerHeight - above - 56), wide = viewer.clientWidth - 12 * (visible.length - 1);
  const row = narrow ? Math.max(...visible.map(across)) : visible.reduce((sum, f) => sum + across(f), 0);
  const fits = (beside, below) => Math.min(
    (wide - (narrow ? 0 : 3 * visible.length * (beside - 1))) / (row * beside),
    narrow ? Infinity : (room / below - 3) / tallest);
  const pairs = side ? [[2, 1], ...(narrow || one ? [] : [[1, 2]])] : [[1, 1]]; // the two beside or below each other
  const [beside, below] = pairs.reduce((best, pair) => (fits(...pair) > fits(...best) ? pair : best));
  box.classList.toggle("stacked", below === 2);
  const scale = fits(beside, below);
  for (const f of visible) for (const view of f.views) {
    view.element.style.width = `${Math.floor(narrow ? (viewer.clientWidth - 3) / beside : across(f) * scale)}px`;
    view.element.style.height = `${Math.floor((narrow ? up(f) : tallest) * scale)}px`;
  }
  label();
  update();
}

function label() {
  for (const f of figures) for (const view of f.views) {
    const [across, up] = AXES[f.plane], ends = NAMES[across];
    const [west, east] = flipped(across) ? [ends[1], ends[0]] : ends;
    $(".west", view.element).textContent = west;
    $(".east", view.element).textContent = east;
    [$(".south", view.element).textContent, $(".north", view.element).textContent] = NAMES[up];
  }
}

function legend() {
  const root = $("#legend"), map = data.layers[state.overlay]?.legend;
  root.replaceChildren();
  if (!map) return;
  const add = (text, parent = root, tag = "span") => {
    const element = document.createElement(tag);
    element.textContent = text;
    return parent.appendChild(element);
  };
  add(map.text);
  if (map.kind === "bar") {
    add(map.from);
    const bar = add("");
    bar.className = "bar";
    for (const [r, g, b, a] of map.colours) add("", bar).style.background = `rgba(${r},${g},${b},${a / 255})`;
    add(map.to);
  } else for (const [name, colour] of map.classes) {
    const entry = add("");
    entry.className = "class";
    add("", entry).style.background = `rgb(${colour})`;
    entry.append(name);
  }
}

function choose(name, value) {
  const input = $(`input[name="${name}"][value="${value}"]`);
  if (!input) return;
  input.checked = true;
  state[name] = value;
  if (name === "overlay") legend();
  layout();
}

function zoom(value) {
  state.zoom = clamp(value, 1, 8);
  centre = [...state.at];
  $("#zoom").value = state.zoom;
  update();
}

function hold(on) {
  if (state.held === on) return;
  state.held = on;
  update();
}

function filter() {
  const value = `brightness(${$("#brightness").value}%) contrast(${$("#contrast").value}%)`;
  for (const f of figures) for (const view of f.views) view.image.style.filter = value;
}
