// The two forms: turn what was typed into a request, and put each error at its field.

const LARGEST_UPLOAD = 64 * 1024 * 1024;

export function takeOver(form, send) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    showErrors(form, {});
    const tooLarge = chosenFiles(form).find((input) => input.files[0].size > LARGEST_UPLOAD);
    if (tooLarge) {
      const detail = "the file is larger than 64 MB";
      showErrors(form, { errors: [{ field: tooLarge.name, detail }] });
      return;
    }
    const button = form.querySelector("button");
    button.disabled = true;
    await send(form, toRequest(form));
    button.disabled = false;
    if (document.activeElement === document.body) button.focus(); // disabling took it away
  });
}

function chosenFiles(form) {
  return [...form.querySelectorAll("input[type=file]")].filter((input) => input.files.length);
}

function toRequest(form) {
  if (chosenFiles(form).length) return { body: new FormData(form) };
  return {
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(form.id === "newsletter" ? newsletter(form) : report(form)),
  };
}

function newsletter(form) {
  const { subject, body, recipients } = form.elements;
  const addresses = recipients.value.split("\n").map((line) => line.trim()).filter(Boolean);
  return { subject: subject.value, body: body.value, recipients: addresses };
}

function report(form) {
  return { lines: form.elements.lines.valueAsNumber };
}

// A problem document names fields like `recipients[3]`: that error belongs to `recipients`.
export function showErrors(form, { detail = "", errors = [] }) {
  const places = new Map([...form.querySelectorAll(".error")].map((p) => [p.dataset.field, p]));
  for (const [name, place] of places) {
    place.textContent = "";
    form.elements[name]?.removeAttribute("aria-invalid");
  }
  for (const error of errors) {
    let name = error.field.split(/[[.]/)[0];
    if (name === "recipients" && form.elements.subscribers.files.length) name = "subscribers";
    const place = places.get(name) ?? places.get("");
    if (place.textContent) continue;
    place.textContent = `${error.field}: ${error.detail}`;
    place.id = `${form.id}-${name}-error`;
    form.elements[name]?.setAttribute("aria-invalid", "true");
    form.elements[name]?.setAttribute("aria-describedby", place.id);
  }
  if (!errors.length) places.get("").textContent = detail;
  form.querySelector("[aria-invalid]")?.focus();
}
