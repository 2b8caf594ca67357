// Filters the rows of the bag as one types; without JavaScript the whole table stays.
document.addEventListener("input", (event) => {
  if (event.target.id !== "bag-filter") return;
  const words = event.target.value.toLowerCase().split(/\s+/);
  const rows = [...document.querySelectorAll("#bag tbody tr")];
  for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  document.getElementById("bag-count").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} tricks`;
});
