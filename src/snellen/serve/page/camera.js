// A picture from the camera: it runs only while its window is open.

import { byId, say } from "./dom.js";

const REASONS = {
  NotAllowedError: "The camera was not allowed. Allow it for this page in the browser's settings, or choose a picture.",
  NotFoundError: "No camera was found. Choose a picture instead.",
  NotReadableError: "The camera is in use by another program. Close that, or choose a picture.",
};
const NO_CAMERA = "The browser gives the camera only to pages over https or on this computer itself. "
  + "Choose a picture instead; on a phone, that offers to take one.";

let stream = null;
let taken = 0;

/** Make the buttons of the camera work; `ontaken(file)` gets each picture. */
export function offerCamera(ontaken) {
  const dialog = byId("camera-window");
  byId("camera").addEventListener("click", open);
  byId("close-camera").addEventListener("click", () => dialog.close());
  byId("take").addEventListener("click", () => take(ontaken));
  byId("video").addEventListener("loadeddata", ready);
  dialog.addEventListener("close", stop); // Escape closes it as well
}

async function open() {
  const dialog = byId("camera-window");
  byId("take").disabled = true;
  byId("camera-words").textContent = "Waiting for the camera …";
  dialog.showModal();
  try {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error(NO_CAMERA);
    const video = { facingMode: { ideal: "environment" }, width: { ideal: 1920 }, height: { ideal: 1080 } };
    stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    const words = REASONS[error.name] ?? (error.message === NO_CAMERA ? NO_CAMERA : `No camera: ${error.message}`);
    byId("camera-words").textContent = words;
    byId("close-camera").focus();
    return;
  }
  if (!dialog.open) return stop(); // closed while the browser was asking
  byId("video").srcObject = stream;
}

function ready() {
  byId("camera-words").textContent = "";
  byId("take").disabled = false;
  byId("take").focus();
}

function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  byId("video").srcObject = null;
}

function take(ontaken) {
  const video = byId("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  byId("camera-window").close();
  canvas.toBlob((blob) => {
    if (blob === null) return say("The camera gave no picture. Please try again.", true);
    taken += 1;
    return ontaken(new File([blob], `camera-${taken}.jpg`, { type: blob.type }));
  }, "image/jpeg", 0.95);
}
