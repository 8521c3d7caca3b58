// Videos on their way to the studio: one after another, each with its progress. What is refused stays until dismissed.

import { element } from "/studio/timeline.js";

const megabytes = (bytes) => Math.ceil(bytes / 2 ** 20);

export class Uploads {
  // most: bytes of a video; onadded(id, isFirst): a video has become a job, as the first of those chosen together
  constructor(host, { most, onadded }) {
    Object.assign(this, { most, onadded, waiting: [], sending: false });
    const input = element("input", { type: "file", multiple: true, accept: "video/*", class: "dv-hidden", onchange: () => {
      this.add(input.files);
      input.value = "";
    } });
    this.zone = element("label", { class: "dv-drop", id: "upload" }, input, element("strong", {}, "Diff-V2M studio"), element("span", {}, `Drop videos here, or click to choose them (up to ${megabytes(most)} MB each)`));
    this.list = element("div", { role: "list", "aria-label": "Uploads", "aria-live": "polite" });
    host.append(this.zone, this.list);
    // Anywhere on the page: a browser would leave the page for a file that is dropped beside the zone.
    addEventListener("dragover", (event) => this.#over(event, true));
    addEventListener("dragleave", (event) => this.#over(event, false));
    addEventListener("drop", (event) => {
      this.#over(event, false);
      if (event.dataTransfer?.files.length) this.add(event.dataTransfer.files);
    });
    addEventListener("beforeunload", (event) => this.sending && event.preventDefault());
  }

  #over(event, is) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    this.zone.classList.toggle("dv-over", is);
  }

  add(files) {
    const batch = { isNew: true };
    for (const file of files) {
      const item = { file, batch, text: element("span", {}, `${file.name}: waiting`), bar: element("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` }) };
      item.button = element("button", { type: "button", onclick: () => this.#drop(item) }, "Cancel");
      item.row = element("div", { role: "listitem", class: "dv-row dv-upload" }, item.text, item.bar, item.button);
      this.list.append(item.row);
      const size = megabytes(file.size), most = megabytes(this.most);
      if (file.size > this.most) this.#refuse(item, `${file.name} has ${size} MB; the studio takes up to ${most} MB a video. Make it smaller, or start the studio with --max-upload ${size}.`);
      else this.waiting.push(item);
    }
    this.#next();
  }

  async #next() {
    if (this.sending) return;
    this.sending = true;
    for (let item; (item = this.waiting.shift()); ) {
      const { status, response } = await this.#send(item);
      if (response?.id) {
        item.row.remove();
        this.onadded(response.id, item.batch.isNew);
        item.batch.isNew = false;
      } else if (!item.dropped) {
        this.#refuse(item, response?.error ?? `${item.file.name}: ${status ? `refused (${status})` : "the upload broke off; a folder cannot be uploaded, and a lost connection needs another try"}`);
      }
    }
    this.sending = false;
  }

  #send(item) {
    const { file, text, bar } = item;
    return new Promise((done) => {
      const request = (item.request = new XMLHttpRequest());
      request.open("PUT", `/upload?name=${encodeURIComponent(file.name)}`);
      request.responseType = "json";
      request.upload.onprogress = ({ loaded, total }) => {
        bar.value = loaded / total;
        text.textContent = loaded < total ? `${file.name}: ${megabytes(loaded)} of ${megabytes(total)} MB` : `${file.name}: being checked`;
      };
      request.onloadend = () => done(request);
      request.send(file);
    });
  }

  #refuse(item, reason) {
    item.text.textContent = reason;
    item.text.className = "dv-bad";
    item.bar.remove();
    item.button.textContent = "Dismiss";
  }

  #drop(item) {
    item.dropped = true;
    item.request?.abort();
    this.waiting = this.waiting.filter((one) => one !== item);
    item.row.remove();
  }
}
