import { app } from "../../scripts/app.js";

// The canvas draws only the first frame of a moving picture; nodes that say so show theirs as an element, which plays.
const MOVING = ["DualCFGSampler", "VideoChain"];

app.registerExtension({
  name: "DreamVideo.MovingPreviews",
  nodeCreated(node) {
    if (!MOVING.includes(node.comfyClass)) return;
    Object.defineProperty(node, "animatedImages", { get: () => true, set() {}, configurable: true });
  },
});
