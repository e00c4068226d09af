// Sends what you type as "my event", and lists each "my response".

const socket = io();
const form = document.querySelector("form");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  socket.emit("my event", { data: form.elements.said.value });
  form.reset();
});

socket.on("my response", (message) => {
  const line = document.createElement("li");
  line.textContent = message.data;
  form.querySelector("ol").append(line);
});
