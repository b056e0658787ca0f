import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { findNode } from "./graph.js";

const MOVING = ["DualCFGSampler", "VideoChain"]; // nodes whose previews move
const ROOM = 150; // for the preview, below the widgets

app.registerExtension({
  name: "DreamVideo.MovingPreviews",

  // The canvas draws only the first frame of a moving picture. Nodes that say so show theirs as an element, which plays.
  nodeCreated(node) {
    if (!MOVING.includes(node.comfyClass)) return;
    Object.defineProperty(node, "animatedImages", { get: () => true, set() {}, configurable: true });
  },

  setup() {
    const grown = new WeakSet();
    api.addEventListener("b_preview_with_metadata", ({ detail }) => {
      const node = findNode(detail.displayNodeId);
      if (!MOVING.includes(node?.comfyClass) || grown.has(node)) return;
      grown.add(node);
      node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1] + ROOM)]);
    });
  },
});
