"use strict";
// Input and result in three linked planes. Positions are millimetres from the corner of the field of view, towards
// right (axis 0), anterior (1) and superior (2).
(() => {
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

  // --- slices out of the sheets

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

  // --- views

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

  // --- layout: one scale for all planes, and all of it in the window where that is possible

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

  // --- pointers and keys

  function point(view, event) {
    const g = geometry(view), box = view.element.getBoundingClientRect(), [across, up] = AXES[view.plane];
    const place = [((event.clientX - box.left) * g.ratio - g.e) / g.a, ((event.clientY - box.top) * g.ratio - g.f) / g.d];
    for (const [axis, value] of [[across, place[0]], [up, place[1]]]) {
      const index = clamp(Math.round((value - main.start[axis]) / main.step[axis]), 0, main.shape[axis] - 1);
      state.at[axis] = main.start[axis] + index * main.step[axis];
    }
    update();
  }

  function drag(element, move) {
    element.addEventListener("pointerdown", event => {
      if (event.button) return;
      event.stopPropagation();
      element.setPointerCapture(event.pointerId);
      move(event);
    });
    element.addEventListener("pointermove", event => element.hasPointerCapture(event.pointerId) && move(event));
  }

  function bind(view) {
    const { element, plane } = view, [across, up, through] = AXES[plane];
    drag(element, event => point(view, event));
    drag(view.handle, event => {
      const box = element.getBoundingClientRect();
      split((event.clientX - box.left) / box.width);
    });
    let turned = 0;
    element.addEventListener("wheel", event => {
      if (!event.ctrlKey && document.activeElement !== element) return; // the page scrolls past
      event.preventDefault();
      if (event.ctrlKey) return zoom(state.zoom * Math.exp(-event.deltaY / 300));
      turned += event.deltaMode ? event.deltaY * 40 : event.deltaY;
      const count = Math.trunc(turned / 40);
      if (count) step(through, -count);
      turned -= 40 * count;
    }, { passive: false });
    element.addEventListener("keydown", event => {
      const right = flipped(across) ? -1 : 1;
      const moves = { ArrowLeft: [across, -right], ArrowRight: [across, right], ArrowUp: [up, 1], ArrowDown: [up, -1],
        PageUp: [through, 1], PageDown: [through, -1] };
      if (!moves[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      step(...moves[event.key]);
    });
  }

  function split(share) {
    state.split = clamp(share, 0, 1);
    $("#split").value = 100 * state.split;
    update();
  }

  const KEYS = { w: ["mode", "wipe"], s: ["mode", "side"], i: ["mode", "before"], r: ["mode", "after"], n: ["overlay", ""],
    0: ["plane", "all"], 1: ["plane", "axial"], 2: ["plane", "coronal"], 3: ["plane", "sagittal"] };
  for (const name in data.layers) if (data.layers[name].legend) KEYS[name[0]] = ["overlay", name];

  const typing = target => target.closest?.("button, summary, input[type=checkbox]");
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const key = event.key.toLowerCase();
    if (key === " " && !typing(event.target)) {
      event.preventDefault();
      hold(true);
    } else if (key === "+" || key === "=") zoom(state.zoom * 1.25);
    else if (key === "-") zoom(state.zoom / 1.25);
    else if (key === "escape") $("#more").open = false;
    else if (KEYS[key]) {
      const [name, value] = KEYS[key], again = name === "overlay" && state.overlay === value; // the key twice: off
      choose(name, again ? "" : value);
    }
  });
  document.addEventListener("keyup", event => event.key === " " && hold(false));
  window.addEventListener("blur", () => hold(false));
  document.addEventListener("pointerdown", event => { if (!event.target.closest("#more")) $("#more").open = false; });

  const figures = all(".plane").map(element => ({
    element, plane: element.dataset.plane, slider: $(".slice", element), output: $("output", element),
    views: all(".view", element).map(view => ({ element: view, plane: element.dataset.plane, side: view.dataset.side,
      image: $(".image", view), over: $(".over", view), handle: $(".handle", view), left: $(".left", view),
      right: $(".right", view) })),
  }));

  function start() {
    for (const f of figures) {
      const through = AXES[f.plane][2];
      f.slider.max = main.shape[through] - 1;
      f.slider.addEventListener("input", () => step(through, f.slider.value - nearest(through)));
      f.views.forEach(bind);
    }
    for (const name of ["mode", "plane", "overlay"])
      for (const input of all(`input[name="${name}"]`)) input.addEventListener("change", () => choose(name, input.value));
    for (const name of ["voxels", "neurological", "cross"]) $(`#${name}`).addEventListener("change", event => {
      state[name] = event.target.checked;
      label();
      update();
    });
    $("#split").addEventListener("input", event => split(event.target.value / 100));
    $("#zoom").addEventListener("input", event => zoom(+event.target.value));
    $("#opacity").addEventListener("input", event => { state.opacity = event.target.value / 100; update(); });
    for (const name of ["brightness", "contrast"]) $(`#${name}`).addEventListener("input", filter);
    const button = $("#hold");
    button.addEventListener("pointerdown", () => hold(true));
    for (const name of ["pointerup", "pointerleave", "pointercancel", "blur"]) button.addEventListener(name, () => hold(false));
    button.addEventListener("keydown", event => [" ", "Enter"].includes(event.key) && hold(true));
    button.addEventListener("keyup", () => hold(false));
    $("#reset").addEventListener("click", () => {
      state = { ...initial(), plane: state.plane, mode: state.mode, overlay: state.overlay };
      centre = [...state.at];
      for (const [id, value] of [["brightness", 100], ["contrast", 100], ["zoom", 1], ["opacity", 75], ["split", 50]])
        $(`#${id}`).value = value;
      for (const id of ["voxels", "neurological", "cross"]) $(`#${id}`).checked = state[id];
      filter();
      layout();
    });
    new ResizeObserver(layout).observe(viewer);
    window.addEventListener("resize", layout);
    layout();
  }

  async function load(layer) { // decoded once, so that a slice is quick
    layer.bitmaps = await Promise.all(layer.images.map(async source => {
      const image = new Image();
      image.src = source;
      await image.decode();
      return typeof createImageBitmap === "function" ? createImageBitmap(image) : image;
    }));
    layer.images = null;
  }

  document.getElementById("file").textContent = decodeURIComponent(location.pathname.split("/").pop() || "");
  document.title = document.getElementById("file").textContent || document.title;
  Promise.all(Object.values(data.layers).map(load)).then(() => {
    start();
    viewer.dataset.ready = "true";
  }).catch(error => {
    const note = document.createElement("p");
    note.className = "note";
    note.textContent = `The pictures could not be shown (${error}); try another browser.`;
    viewer.prepend(note);
  });
})();
