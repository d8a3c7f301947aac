package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/gorilla/mux"
	"github.com/hashicorp/go-hclog"
)

// open are the routes that take no token.
var open = map[string]bool{"/metrics": true, "/healthz": true, "/readyz": true}

type route struct{ method, template string }

// routes walks the router that the server uses, so that none can be forgotten.
func routes(t *testing.T) []route {
	t.Helper()
	h := &handlers{logger: hclog.NewNullLogger()}
	var all []route
	err := newRouter(h, http.NotFoundHandler()).Walk(func(r *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		template, err := r.GetPathTemplate()
		if err != nil {
			return err
		}
		methods, err := r.GetMethods()
		if err != nil {
			return err
		}
		for _, m := range methods {
			all = append(all, route{m, template})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEveryRouteNeedsItsToken(t *testing.T) {
	url := handlerOnly(t)
	guarded := 0
	for _, r := range routes(t) {
		if open[r.template] {
			continue
		}
		guarded++
		path := strings.NewReplacer("{id}", "demo", "{name}", "demo", "{node}", "n1").Replace(r.template)
		wrong := internalToken
		if strings.HasPrefix(r.template, "/internal/") {
			wrong = adminToken
		}
		for name, header := range map[string]string{
			"none": "", "wrong": "Bearer nonsense", "the other role's": "Bearer " + wrong, "empty": "Bearer ",
			"basic": "Basic " + adminToken, "bare": adminToken, "longer": "Bearer " + adminToken + "x",
			"shorter": "Bearer " + adminToken[:5],
		} {
			t.Run(r.method+" "+r.template+" "+name, func(t *testing.T) {
				a := send(t, r.method, url+path, nil, "Authorization", header)
				a.problem(http.StatusUnauthorized)
				if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") {
					t.Errorf("WWW-Authenticate is %q", a.header.Get("WWW-Authenticate"))
				}
			})
		}
	}
	if guarded < 19 {
		t.Errorf("only %d guarded routes were found", guarded)
	}
}

// TestRightTokenReachesTheRoute proves that the 401 above comes of the token:
// with the right one every route gets as far as the store, which is not there.
func TestRightTokenReachesTheRoute(t *testing.T) {
	h := newHarness(t)
	for _, r := range routes(t) {
		path := strings.NewReplacer("{id}", "demo", "{name}", "demo", "{node}", "n1").Replace(r.template)
		if a := h.do(r.method, path, nil); a.status == http.StatusUnauthorized || a.status >= 500 {
			t.Errorf("%s %s: %d %s", r.method, path, a.status, a.body)
		}
	}
}

func TestUnknownPathsAreClosedToo(t *testing.T) {
	url := handlerOnly(t)
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/nothing", "//v1/streams", "/v1//streams", "/v2/streams",
		"/internal/", "/internal/v1/nothing", "/internal", "/metrics/", "/metrics/../v1/streams", "/healthz/..%2fv1/streams"} {
		send(t, "GET", url+path, nil).problem(http.StatusUnauthorized)
	}
}

func TestEmptyTokensOpenNothing(t *testing.T) {
	s := New(Config{Listen: "127.0.0.1:0"}, Deps{})
	for _, header := range []string{"", "Bearer", "Bearer ", "bearer  "} {
		for _, path := range []string{"/v1/streams", "/internal/v1/ingest/publish"} {
			r := httptest.NewRequest("GET", path, nil)
			if header != "" {
				r.Header.Set("Authorization", header)
			}
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			if w.Code != http.StatusUnauthorized {
				t.Errorf("%q on %s: %d", header, path, w.Code)
			}
		}
	}
	if err := s.Start(t.Context()); err == nil {
		t.Error("it starts without tokens")
	}
}

// TestDocumentHasNoEmptyValue catches a comma in an unquoted description, which
// YAML's flow style reads as another key.
func TestDocumentHasNoEmptyValue(t *testing.T) {
	var doc any
	if err := yaml.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case nil:
			t.Errorf("%s has no value", at)
		case map[string]any:
			for key, inner := range v {
				walk(at+"/"+key, inner)
			}
		case []any:
			for _, inner := range v {
				walk(at+"[]", inner)
			}
		}
	}
	walk("", doc)
}

// TestRouterMatchesTheDocument keeps openapi.yaml and the routes the same.
func TestRouterMatchesTheDocument(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	documented := map[route]bool{}
	for path, operations := range doc.Paths {
		for method := range operations {
			if method != "parameters" {
				documented[route{strings.ToUpper(method), path}] = true
			}
		}
	}
	for _, r := range routes(t) {
		if !documented[r] && !open[r.template] {
			t.Errorf("%s %s is served and not in openapi.yaml", r.method, r.template)
		}
		delete(documented, r)
	}
	for r := range documented {
		t.Errorf("%s %s is in openapi.yaml and not served", r.method, r.template)
	}
}
