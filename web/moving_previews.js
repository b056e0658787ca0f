import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

// Nodes whose previews move, and the room for it below the widgets; Video Chain's is shared with the words of its stage.
const ROOM = { DualCFGSampler: 150, VideoChain: 220 };

app.registerExtension({
  name: "DreamVideo.MovingPreviews",

  // The canvas draws only the first frame of a moving picture. Nodes that say so show theirs as an element, which plays.
  nodeCreated(node) {
    if (!(node.comfyClass in ROOM)) return;
    Object.defineProperty(node, "animatedImages", { get: () => true, set() {}, configurable: true });
  },

  setup() {
    const grown = new WeakSet();
    api.addEventListener("b_preview_with_metadata", ({ detail }) => {
      const node = app.graph.getNodeById(detail.displayNodeId);
      if (!(node?.comfyClass in ROOM) || grown.has(node)) return;
      grown.add(node);
      node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1] + ROOM[node.comfyClass])]);
    });
  },
});
