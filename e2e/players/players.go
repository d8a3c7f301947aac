// Package players holds the pages that the end-to-end tests play streams with,
// and publish from, in headless Chromium.
package players

import "embed"

// Files are the pages and their script.
//
//go:embed *.html *.js
var Files embed.FS
