package client

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOddAnswers shows what becomes of answers that are not the api's, such as
// a proxy's.
func TestOddAnswers(t *testing.T) {
	token := filepath.Join(t.TempDir(), "admin.token")
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"a page", "<html>hello</html>", http.StatusOK, "reading the api's answer"},
		{"nothing", "", http.StatusOK, "reading the api's answer"},
		{"an error's page", "<html>sorry</html>", http.StatusBadGateway, "the api answered 502 Bad Gateway"},
		{"a problem", `{"title":"Not found","detail":"There is no stream \"x\".","status":404}`, http.StatusNotFound, `There is no stream "x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer srv.Close()
			flags := Flags{API: srv.URL, TokenFile: token}
			var out bytes.Buffer
			ctx := &Context{Ctx: t.Context(), Stdout: &out, Stderr: &out}
			for what, run := range map[string]func(*Context) error{
				"get": (&StreamGetCmd{Flags: flags, ID: "x"}).Run,
				"ls":  (&WorkerListCmd{Flags: flags}).Run,
			} {
				err := run(ctx)
				if err == nil || !strings.Contains(err.Error(), c.want) || out.Len() > 0 {
					t.Errorf("%s: %v, printed %q", what, err, out.String())
				}
				var api *APIError
				if c.status != http.StatusOK && (!errors.As(err, &api) || api.Status != c.status) {
					t.Errorf("%s: %v is not the api's %d", what, err, c.status)
				}
			}
		})
	}
}
