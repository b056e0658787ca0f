import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { findNode, rootGraph } from "./graph.js";

// What the pack's nodes say of their results (`remark` in nodes/host/messages.py) is shown as text on the node. It stays
// until the node runs again, through a reload too: this tab of the browser keeps it, the workflow does not.

const OUTPUT = "dreamvideo_remark";
const WIDGET = "dreamvideo_remark";
const LIVE_WIDGET = "$$node-text-preview"; // the frontend's own, with what a node says while it runs
const STORED = "dreamvideo.remarks";
const STORED_CHARACTERS = 500_000;
const MARGIN = 10; // around a widget that is an element, on the canvas
const TALLEST = 240; // pixels; longer text scrolls
const STYLE =
  "box-sizing: border-box; padding: 2px 6px; overflow-y: auto; white-space: pre-wrap; overflow-wrap: anywhere; " +
  `max-height: ${TALLEST}px; font: 12px/1.35 sans-serif; color: var(--descrip-text, #999); user-select: text;`;

// Root graph's id -> node's id ("5:3" inside a subgraph) -> { type, said }, where `said` maps the nodes that spoke (the node
// itself, or hidden ones that it has expanded into) to their lines. The graph that was heard from last comes last.
let graphs = {};
const queued = new Map(); // prompt id -> id of the graph that it was queued from
let run = { graph: undefined, begun: new Set() };

app.registerExtension({
  name: "DreamVideo.Remarks",

  setup() {
    graphs = read();
    followQueue();
    api.addEventListener("execution_start", ({ detail }) => {
      run = { graph: queued.get(detail.prompt_id), begun: new Set() };
    });
    api.addEventListener("executing", ({ detail }) => begin(detail));
    api.addEventListener("executed", ({ detail }) => hear(detail));
    for (const end of ["execution_success", "execution_error", "execution_interrupted"])
      api.addEventListener(end, ({ detail }) => queued.delete(detail.prompt_id));
    drawAll();
  },

  afterConfigureGraph: drawAll,
});

// A run that was queued from one graph may go on while another one is on the screen, with the same ids of nodes.
function followQueue() {
  const queuePrompt = api.queuePrompt;
  api.queuePrompt = async function (number, data, ...others) {
    const answer = await queuePrompt.call(this, number, data, ...others);
    if (answer?.prompt_id) queued.set(answer.prompt_id, data?.workflow?.id);
    return answer;
  };
}

/** What a node said of its last result goes when it runs anew. A node whose result is kept does not begin. */
function begin(id) {
  if (id == null || run.begun.has(String(id))) return;
  run.begun.add(String(id));
  const graph = run.graph ?? rootGraph().id;
  if (!graphs[graph]?.[id]) return;
  delete graphs[graph][id];
  write();
  if (graph === rootGraph().id) draw(id);
}

function hear({ node, display_node, output, prompt_id }) {
  const lines = output?.[OUTPUT];
  if (!Array.isArray(lines)) return;
  const id = String(display_node ?? node);
  const graph = queued.get(prompt_id) ?? run.graph ?? rootGraph().id;
  const shown = graph === rootGraph().id;
  const { [graph]: nodes = {}, ...others } = graphs;
  nodes[id] = { type: shown ? findNode(id)?.type : nodes[id]?.type, said: { ...nodes[id]?.said, [node]: lines } };
  graphs = { ...others, [graph]: nodes };
  write();
  if (shown) draw(id);
}

function drawAll() {
  for (const id of Object.keys(graphs[rootGraph().id] ?? {})) draw(id);
}

function draw(id) {
  const node = findNode(id);
  if (!node) return;
  const text = textFor(node, graphs[rootGraph().id]?.[id]);
  const widget = node.widgets?.find((widget) => widget.name === WIDGET);
  if (!text) {
    if (widget) node.removeWidget(widget);
    return;
  }
  const live = node.widgets?.find((widget) => widget.name === LIVE_WIDGET);
  if (live) node.removeWidget(live); // frontends before 1.55 leave it there, with the same words
  (widget ?? addWidget(node)).element.textContent = text;
  // Nodes 2.0 are as tall as what is in them.
  if (!window.LiteGraph.vueNodesMode) node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  node.setDirtyCanvas(true, true);
}

/** All lines, in the order of the nodes: stage 2 before stage 10, whichever was made first. */
function textFor(node, remark) {
  if (!remark || (remark.type && remark.type !== node.type)) return "";
  const inOrder = Object.entries(remark.said).sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
  return inOrder.flatMap(([, lines]) => lines).join("\n");
}

function addWidget(node) {
  const element = document.createElement("div");
  element.className = "dreamvideo-remark";
  element.style.cssText = STYLE;
  element.dataset.captureWheel = "true"; // the wheel scrolls the text, and does not zoom the canvas
  const height = () => heightOf(element, node.size[0] - 2 * MARGIN) + 2 * MARGIN;
  const widget = node.addDOMWidget(WIDGET, "dreamvideo_remark", element, {
    serialize: false, // into the prompt
    hideInPanel: true,
    margin: MARGIN,
    getValue: () => element.textContent,
    getMinHeight: height,
    getMaxHeight: height,
  });
  widget.serialize = false; // into the workflow
  return widget;
}

const ruler = document.createElement("div");
const measured = new WeakMap();

/** Of the element's text at a width, whether the element is on the page or not. */
function heightOf(element, width) {
  const last = measured.get(element);
  if (last?.text === element.textContent && last.width === width) return last.height;
  ruler.style.cssText = `${STYLE} position: absolute; visibility: hidden; pointer-events: none; width: ${width}px;`;
  ruler.textContent = element.textContent;
  document.body.append(ruler);
  const height = ruler.offsetHeight;
  ruler.remove();
  measured.set(element, { text: element.textContent, width, height });
  return height;
}

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(STORED)) ?? {};
  } catch {
    return {};
  }
}

/** Keep everything for a reload, without the graphs that were silent longest where it is too much. */
function write() {
  let text = JSON.stringify(graphs);
  while (text.length > STORED_CHARACTERS) {
    const { [Object.keys(graphs)[0]]: oldest, ...others } = graphs;
    graphs = others;
    text = JSON.stringify(graphs);
  }
  try {
    sessionStorage.setItem(STORED, text);
  } catch {
    // Full, or forbidden: the text stays until the reload.
  }
}
