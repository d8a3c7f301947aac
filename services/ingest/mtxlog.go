package ingest

import "regexp"

// secrets are the forms in which mediamtx's log can hold a stream key or a
// read token: a query, and a stream ID of SRT that it could not parse.
var secrets = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`(?i)\b(key|token|pass|jwt)=[^&\s'",]+`), "$1=…"},
	{regexp.MustCompile(`invalid stream ID '[^']*'`), "invalid stream ID '…'"},
	{regexp.MustCompile(`(publish|read):([^:\s]+):\S+`), "$1:$2:…"},
	{regexp.MustCompile(`(//[^/@\s:]*:)[^@\s]+@`), "$1…@"},
}

// Redact blots out what may be a stream key or a token in a line of
// mediamtx's log.
func Redact(line string) string {
	for _, s := range secrets {
		line = s.re.ReplaceAllString(line, s.to)
	}
	return line
}
