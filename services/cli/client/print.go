package client

import (
	"encoding/json"
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

type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer) *table { return &table{w: tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)} }

func (t *table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = clean(cell)
	}
	_, _ = fmt.Fprintln(t.w, strings.Join(cells, "\t")) // flush returns the error
}

func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
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

func clock(t time.Time) string { return t.Local().Format(time.DateTime) }
