package api

import (
	"encoding/base64"
	"sort"
	"strings"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// Bounds of a page.
const (
	defaultLimit = 50
	maxLimit     = 200
)

// cursorPrefix marks a cursor as one of ours, so that garbage is refused
// rather than read as a position. Each list has its own kind.
const cursorPrefix = "1."

// page reads the paging parameters of the list named kind; after is the
// position that the page starts behind, "" for the first.
func page(kind string, limit *wire.Limit, after *wire.After) (n int, position string, err error) {
	n = defaultLimit
	if limit != nil {
		n = *limit
		if n < 1 || n > maxLimit {
			return 0, "", badRequest("A query parameter is out of range.").
				field("limit", "must be 1 to %d, is %d", maxLimit, n)
		}
	}
	if after == nil || *after == "" {
		return n, "", nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(*after)
	position, ok := strings.CutPrefix(string(raw), cursorPrefix+kind+".")
	if err != nil || !ok || !isPosition(position) {
		return 0, "", badCursor()
	}
	return n, position, nil
}

func badCursor() *problem {
	return badRequest("A query parameter is malformed.").field("after", "must be the next of a page of this list")
}

// isPosition admits what ids of ours are made of and nothing else.
func isPosition(s string) bool {
	return s != "" && len(s) <= 200 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-_./:", r)
	})
}

// cursor is the inverse of page's position; nil when there is no next page.
func cursor(kind, position string) *string {
	if position == "" {
		return nil
	}
	c := base64.RawURLEncoding.EncodeToString([]byte(cursorPrefix + kind + "." + position))
	return &c
}

// slicePage cuts a page out of a whole list. It sorts all by key.
func slicePage[T any](all []T, key func(T) string, after string, limit int) (items []T, next string) {
	sort.Slice(all, func(i, j int) bool { return key(all[i]) < key(all[j]) })
	from := sort.Search(len(all), func(i int) bool { return key(all[i]) > after })
	to := min(from+limit, len(all))
	items = all[from:to]
	if to < len(all) {
		next = key(all[to-1])
	}
	return items, next
}
