// Gradio's canvas says nothing of a file that the browser cannot show. Here it is named in the tab's status line.
for (const kind of ["change", "drop"]) {
  document.addEventListener(kind, (event) => {
    const file = (event.dataTransfer || event.target).files?.[0];
    const tab = event.target.closest("#canvas")?.closest("[role=tabpanel]");
    if (!file || !tab) return;
    const tell = (words) => { tab.querySelector(".status [role=status]").textContent = words; };
    createImageBitmap(file).then(
      () => tell(""),
      () => tell(`${file.name}: not a picture that this browser can show`),
    );
  }, true);
}
