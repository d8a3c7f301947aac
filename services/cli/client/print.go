package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// print writes v as JSON, or the table that rows makes.
func (c *session) print(v any, rows func(t *table)) error {
	if c.json {
		e := json.NewEncoder(c.Stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
		return nil
	}
	t := newTable(c.Stdout)
	rows(t)
	return t.flush()
}

// line writes one line of a stream of lines.
func (c *session) line(v any, text string) error {
	if c.json {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("printing: %w", err)
		}
		text = string(b)
	} else {
		text = clean(text)
	}
	if _, err := fmt.Fprintln(c.Stdout, text); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

type table struct {
	w   *tabwriter.Writer
	err error // of end
}

func newTable(out io.Writer) *table { return &table{w: tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)} }

// say writes a line that is no row: it widens no column.
func (t *table) say(format string, args ...any) {
	_, _ = fmt.Fprintln(t.w, clean(fmt.Sprintf(format, args...))) // flush returns the error
}

// end closes a table that another one follows, whose columns are its own.
func (t *table) end() { t.err = errors.Join(t.err, t.w.Flush()) }

func (t *table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = clean(cell)
	}
	_, _ = fmt.Fprintln(t.w, strings.Join(cells, "\t")) // flush returns the error
}

func (t *table) flush() error {
	if err := errors.Join(t.err, t.w.Flush()); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

// clean keeps names and messages from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '�'
		}
		return r
	}, s)
}

func orDash[T any](v *T, format func(T) string) string {
	if v == nil {
		return "-"
	}
	return format(*v)
}

func text(s string) string { return s }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func seconds(s float64) string {
	return strconv.FormatFloat(s, 'f', -1, 64) + " s"
}

// mega prints a rate in millions: bits or pixels per second.
func mega(n int64) string { return strconv.FormatFloat(float64(n)/1e6, 'f', 2, 64) }

// px1080p30 is one 1080p rendition at 30 frames per second, in px/s.
const px1080p30 = 1920 * 1080 * 30

// unknown stands for what a worker could not tell; it is never shown as 0.
const unknown = "?"

// orUnknown formats a value that may not be known.
func orUnknown[T any](v *T, format func(T) string) string {
	if v == nil {
		return unknown
	}
	return format(*v)
}

// px prints px/s, also as so many 1080p30 renditions.
func px(n int64) string {
	return mega(n) + " Mpx/s (" + equivalents(n) + " × 1080p30)"
}

// equivalents says how many 1080p30 renditions px/s are.
func equivalents(n int64) string { return strconv.FormatFloat(float64(n)/px1080p30, 'f', 1, 64) }

// gib prints bytes in GiB.
func gib(n int64) string { return strconv.FormatFloat(float64(n)/(1<<30), 'f', 1, 64) }

// amount prints an amount of a resource in its unit.
func amount(n int64, unit string) string {
	switch unit {
	case "px/s":
		return px(n)
	case "bytes":
		return gib(n) + " GiB"
	case "sessions":
		return count(n, "encoder session")
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// count prints a number of things.
func count[N int | int64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// short cuts a GPU's UUID to what tells it apart in a table.
func short(device string) string {
	const most = 12 // gpu- and the UUID's first group
	if device == "" {
		return "-"
	}
	if strings.HasPrefix(device, "gpu-") && len(device) > most {
		return device[:most] + "…"
	}
	return device
}

func percent(n int) string { return fmt.Sprintf("%d %%", n) }

func number[N int | int64](n N) string { return strconv.FormatInt(int64(n), 10) }

func clock(t time.Time) string { return t.Local().Format(time.DateTime) }
