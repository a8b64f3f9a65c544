// Pointers, keys and buttons; and the start.

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
