const chooser = document.querySelector("#example");
const ways = [...document.querySelectorAll(".way")];
const marks = [...document.querySelectorAll("[data-first]")];

function show(number) {
  ways.forEach((way, i) => { way.hidden = i !== number; });
  const leaf = Number(ways[number].dataset.leaf);
  for (const mark of marks) {
    mark.classList.toggle("on", Number(mark.dataset.first) <= leaf && leaf <= Number(mark.dataset.last));
  }
}

if (chooser) {
  chooser.addEventListener("change", () => show(chooser.selectedIndex));
  show(chooser.selectedIndex);
}
