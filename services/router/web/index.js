'use strict';
document.getElementById('go').addEventListener('submit', (event) => {
  event.preventDefault();
  location.href = '/watch/' + encodeURIComponent(document.getElementById('stream').value);
});
