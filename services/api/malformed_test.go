package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

const goodProfile = `{"video":[{"name":"v","width":640,"height":360,"bitrate":800000}],"audio":[{"name":"a","bitrate":96000}]}`

// TestMalformedRequests is the table of what a client can get wrong: each
// gets a clear problem document, and nothing is stored.
func TestMalformedRequests(t *testing.T) {
	h := newHarness(t)
	h.create("taken")
	long := strings.Repeat("x", 300)
	tests := []struct {
		name, method, path string
		body               any
		headers            []string
		status             int
		field, says        string // an entry of errors, or part of the detail
	}{
		{name: "no such path", method: "GET", path: "/v1/nothing", status: 404},
		{name: "no such internal path", method: "GET", path: "/internal/v1/nothing", status: 404},
		{name: "a slash too many", method: "GET", path: "/v1/streams/", status: 404},
		{name: "a double slash", method: "GET", path: "/v1//streams", status: 404},
		{name: "dots in the path", method: "GET", path: "/v1/streams/../profiles", status: 404},
		{name: "encoded dots", method: "GET", path: "/v1/streams/%2e%2e", status: 404, says: "can't be a stream's id"},
		{name: "encoded slash", method: "GET", path: "/v1/streams/a%2fb", status: 404},
		{name: "NUL in the id", method: "GET", path: "/v1/streams/a%00b", status: 404},
		{name: "method not allowed", method: "PUT", path: "/v1/streams", body: "{}", status: 405, says: "GET, POST"},
		{name: "made-up method", method: "BREW", path: "/v1/streams", status: 405},
		{name: "delete of a list", method: "DELETE", path: "/v1/workers", status: 405, says: "GET"},

		{name: "no body", method: "POST", path: "/v1/streams", body: "", status: 400, says: "empty"},
		{name: "no content type", method: "POST", path: "/v1/streams", body: `{"id":"x"}`, headers: []string{"Content-Type", ""}, status: 415},
		{name: "form", method: "POST", path: "/v1/streams", body: "id=x", headers: []string{"Content-Type", "application/x-www-form-urlencoded"}, status: 415},
		{name: "compressed", method: "POST", path: "/v1/streams", body: `{"id":"x"}`, headers: []string{"Content-Encoding", "gzip"}, status: 415},
		{name: "not JSON", method: "POST", path: "/v1/streams", body: "id: x", status: 400, says: "not JSON"},
		{name: "torn JSON", method: "POST", path: "/v1/streams", body: `{"id":"x"`, status: 400, says: "ends in the middle"},
		{name: "two values", method: "POST", path: "/v1/streams", body: `{"id":"x"}{"id":"y"}`, status: 400, says: "more than one"},
		{name: "trailing garbage", method: "POST", path: "/v1/streams", body: `{"id":"x"} tail`, status: 400, says: "more than one"},
		{name: "an array", method: "POST", path: "/v1/streams", body: `["x"]`, status: 400, says: "must be a JSON object"},
		{name: "a string", method: "POST", path: "/v1/streams", body: `"x"`, status: 400, says: "must be a JSON object"},
		{name: "unknown field", method: "POST", path: "/v1/streams", body: `{"id":"x","colour":"red"}`, status: 400, field: "colour", says: "unknown field"},
		{name: "server's field", method: "POST", path: "/v1/streams", body: `{"id":"x","version":7}`, status: 400, field: "version"},
		{name: "a key of one's own", method: "POST", path: "/v1/streams", body: `{"id":"x","key":"mine"}`, status: 400, field: "key"},
		{name: "wrong type", method: "POST", path: "/v1/streams", body: `{"id":5}`, status: 400, field: "id", says: "a string"},
		{name: "wrong type of a number", method: "POST", path: "/v1/streams", body: `{"id":"x","grace_seconds":"15s"}`, status: 400, field: "grace_seconds", says: "a number"},
		{name: "too deep", method: "POST", path: "/v1/streams", body: strings.Repeat("[", 20000), status: 400},
		{name: "too large", method: "POST", path: "/v1/streams", body: `{"id":"` + strings.Repeat("x", maxBody) + `"}`, status: 413},
		{name: "too large behind the value", method: "POST", path: "/v1/streams", body: `{"id":"x"}` + strings.Repeat(" ", maxBody), status: 413},

		{name: "no id", method: "POST", path: "/v1/streams", body: `{}`, status: 422, field: "id"},
		{name: "null id", method: "POST", path: "/v1/streams", body: `null`, status: 422, field: "id"},
		{name: "upper case id", method: "POST", path: "/v1/streams", body: `{"id":"Demo"}`, status: 422, field: "id"},
		{name: "traversal id", method: "POST", path: "/v1/streams", body: `{"id":"../etc"}`, status: 422, field: "id"},
		{name: "separators in the id", method: "POST", path: "/v1/streams", body: `{"id":"a:b#c@d"}`, status: 422, field: "id"},
		{name: "newline in the id", method: "POST", path: "/v1/streams", body: `{"id":"demo\n"}`, status: 422, field: "id"},
		{name: "long id", method: "POST", path: "/v1/streams", body: `{"id":"` + long + `"}`, status: 422, field: "id"},
		{name: "long name", method: "POST", path: "/v1/streams", body: `{"id":"x","name":"` + long + `"}`, status: 422, field: "name"},
		{name: "control characters in the name", method: "POST", path: "/v1/streams", body: `{"id":"x","name":"a\u001b[2J"}`, status: 422, field: "name"},
		{name: "no such profile", method: "POST", path: "/v1/streams", body: `{"id":"x","profile":"nope"}`, status: 422, field: "profile", says: "no profile"},
		{name: "profile with separators", method: "POST", path: "/v1/streams", body: `{"id":"x","profile":"a:b"}`, status: 422, field: "profile"},
		{name: "negative grace", method: "POST", path: "/v1/streams", body: `{"id":"x","grace_seconds":-1}`, status: 422, field: "grace_seconds"},
		{name: "huge grace", method: "POST", path: "/v1/streams", body: `{"id":"x","grace_seconds":1e300}`, status: 422, field: "grace_seconds"},
		{name: "number out of range", method: "POST", path: "/v1/streams", body: `{"id":"x","grace_seconds":1e999}`, status: 400, field: "grace_seconds"},
		{name: "short window", method: "POST", path: "/v1/streams", body: `{"id":"x","window_seconds":1}`, status: 422, field: "window_seconds"},
		{name: "negative priority", method: "POST", path: "/v1/streams", body: `{"id":"x","priority":-1}`, status: 422, field: "priority", says: "0 and 100"},
		{name: "priority above 100", method: "PATCH", path: "/v1/streams/taken", body: `{"priority":101}`, status: 422, field: "priority"},
		{name: "half a priority", method: "POST", path: "/v1/streams", body: `{"id":"x","priority":1.5}`, status: 400, field: "priority", says: "a whole number"},
		{name: "a rule that is none", method: "POST", path: "/v1/streams", body: `{"id":"x","require":["device=gpu","fast"]}`, status: 422, field: "require[1]", says: "key=value"},
		{name: "a device that is none", method: "POST", path: "/v1/streams", body: `{"id":"x","prefer":["device=tpu"]}`, status: 422, field: "prefer[0]", says: "cpu or gpu"},
		{name: "a rule with a newline", method: "PATCH", path: "/v1/streams/taken", body: `{"require":["class=a\n"]}`, status: 422, field: "require[0]"},
		{name: "a long rule", method: "PATCH", path: "/v1/streams/taken", body: `{"require":["class=` + long + `"]}`, status: 422, field: "require[0]"},
		{name: "too many rules", method: "PATCH", path: "/v1/streams/taken", body: `{"prefer":["a=b"` + strings.Repeat(`,"a=b"`, 16) + `]}`, status: 422, field: "prefer", says: "16"},
		{name: "a rule that is no list", method: "PATCH", path: "/v1/streams/taken", body: `{"require":"device=gpu"}`, status: 400, field: "require", says: "an array"},
		{name: "degrade in words", method: "PATCH", path: "/v1/streams/taken", body: `{"degrade":"yes"}`, status: 400, field: "degrade", says: "true or false"},
		{name: "it exists", method: "POST", path: "/v1/streams", body: `{"id":"taken"}`, status: 409, says: `"taken"`},

		{name: "get of nothing", method: "GET", path: "/v1/streams/nothing", status: 404, says: `"nothing"`},
		{name: "status of nothing", method: "GET", path: "/v1/streams/nothing/status", status: 404},
		{name: "events of nothing", method: "GET", path: "/v1/streams/nothing/events", status: 404},
		{name: "key of nothing", method: "POST", path: "/v1/streams/nothing/key", status: 404},
		{name: "delete of nothing", method: "DELETE", path: "/v1/streams/nothing", status: 404},
		{name: "update of nothing", method: "PATCH", path: "/v1/streams/nothing", body: `{}`, status: 404},
		{name: "update of the id", method: "PATCH", path: "/v1/streams/taken", body: `{"id":"other"}`, status: 400, field: "id"},
		{name: "update to no such profile", method: "PATCH", path: "/v1/streams/taken", body: `{"profile":"nope"}`, status: 422, field: "profile"},
		{name: "If-Match that is no version", method: "PATCH", path: "/v1/streams/taken", body: `{}`, headers: []string{"If-Match", `"abc"`}, status: 400, field: "If-Match"},
		{name: "weak If-Match", method: "PATCH", path: "/v1/streams/taken", body: `{}`, headers: []string{"If-Match", `W/"1"`}, status: 400, field: "If-Match"},
		{name: "If-Match of another version", method: "PATCH", path: "/v1/streams/taken", body: `{}`, headers: []string{"If-Match", `"99"`}, status: 412},

		{name: "limit 0", method: "GET", path: "/v1/streams?limit=0", status: 400, field: "limit", says: "1 to 200"},
		{name: "limit 201", method: "GET", path: "/v1/streams?limit=201", status: 400, field: "limit"},
		{name: "limit of words", method: "GET", path: "/v1/streams?limit=many", status: 400, field: "limit"},
		{name: "huge limit", method: "GET", path: "/v1/workers?limit=99999999999999999999", status: 400, field: "limit"},
		{name: "made-up cursor", method: "GET", path: "/v1/streams?after=zzz", status: 400, field: "after"},
		{name: "another list's cursor", method: "GET", path: "/v1/streams?after=" + *cursor("profiles", "720p"), status: 400, field: "after"},
		{name: "cursor with a Redis pattern", method: "GET", path: "/v1/streams/taken/events?after=" + *cursor("events", "*\r\nDEL x"), status: 400, field: "after"},

		{name: "profile name", method: "PUT", path: "/v1/profiles/A:b", body: goodProfile, status: 422, field: "name"},
		{name: "get of a bad profile name", method: "GET", path: "/v1/profiles/A:b", status: 404},
		{name: "built-in profile", method: "PUT", path: "/v1/profiles/720p", body: goodProfile, status: 409, says: "built in"},
		{name: "delete of a built-in profile", method: "DELETE", path: "/v1/profiles/720p", status: 409, says: "built in"},
		{name: "delete of no profile", method: "DELETE", path: "/v1/profiles/nope", status: 404},
		{name: "empty profile", method: "PUT", path: "/v1/profiles/p", body: `{}`, status: 422, field: "video"},
		{name: "unknown nested field", method: "PUT", path: "/v1/profiles/p", body: `{"video":[{"name":"v","widht":1}]}`, status: 400, field: "widht"},
		{name: "odd size", method: "PUT", path: "/v1/profiles/p", body: `{"video":[{"name":"v","width":641,"height":360,"bitrate":800000}]}`, status: 422, field: "video[0].width"},
		{name: "preset with separators", method: "PUT", path: "/v1/profiles/p", body: `{"video":[{"name":"v","width":640,"height":360,"bitrate":800000,"preset":"fast:c=x"}]}`, status: 422, field: "video[0].preset"},
		{name: "codec with separators", method: "PUT", path: "/v1/profiles/p", body: `{"audio":[{"name":"a","bitrate":96000,"codec":"aac#x"}]}`, status: 422, field: "audio[0].codec"},
		{name: "rendition with a slash", method: "PUT", path: "/v1/profiles/p", body: `{"audio":[{"name":"../a","bitrate":96000}]}`, status: 422, field: "audio[0].name"},
		{name: "reserved rendition", method: "PUT", path: "/v1/profiles/p", body: `{"audio":[{"name":"seg","bitrate":96000}]}`, status: 422, field: "audio[0].name"},
		{name: "replace of what is not there", method: "PUT", path: "/v1/profiles/p", body: goodProfile, headers: []string{"If-Match", `"1"`}, status: 412},
		{name: "If-None-Match of a version", method: "PUT", path: "/v1/profiles/p", body: goodProfile, headers: []string{"If-None-Match", `"1"`}, status: 400, field: "If-None-Match"},

		{name: "unknown video codec", method: "PUT", path: "/v1/profiles/p", body: `{"video":[{"name":"v","codec":"vp9","width":640,"height":360,"bitrate":800000}]}`, status: 422, field: "video[0].codec", says: "hevc"},

		{name: "explain without a stream", method: "GET", path: "/v1/placement/explain", status: 400, field: "stream", says: "required"},
		{name: "explain of nothing", method: "GET", path: "/v1/placement/explain?stream=nothing", status: 404, says: `"nothing"`},
		{name: "explain of what is no id", method: "GET", path: "/v1/placement/explain?stream=..%2F", status: 404},
		{name: "explain of two", method: "GET", path: "/v1/placement/explain?stream=taken&stream=other", status: 400, field: "stream"},
		{name: "simulate by GET", method: "GET", path: "/v1/placement/simulate", status: 405, says: "POST"},
		{name: "simulate nothing", method: "POST", path: "/v1/placement/simulate", body: `{}`, status: 422, field: "count", says: "1 and 1000"},
		{name: "simulate none", method: "POST", path: "/v1/placement/simulate", body: `{"profile":"720p","count":0}`, status: 422, field: "count"},
		{name: "simulate too many", method: "POST", path: "/v1/placement/simulate", body: `{"profile":"720p","count":1001}`, status: 422, field: "count"},
		{name: "simulate half a stream", method: "POST", path: "/v1/placement/simulate", body: `{"profile":"720p","count":0.5}`, status: 400, field: "count"},
		{name: "simulate without a profile", method: "POST", path: "/v1/placement/simulate", body: `{"count":1}`, status: 422, field: "profile"},
		{name: "simulate no such profile", method: "POST", path: "/v1/placement/simulate", body: `{"profile":"nope","count":1}`, status: 422, field: "profile", says: "no profile"},
		{name: "simulate a bad rule", method: "POST", path: "/v1/placement/simulate", body: `{"profile":"720p","count":1,"require":["gpu"]}`, status: 422, field: "require[0]"},
		{name: "simulate a bad priority", method: "POST", path: "/v1/placement/simulate", body: `{"profile":"720p","count":1,"priority":1000}`, status: 422, field: "priority"},
		{name: "simulate with an unknown field", method: "POST", path: "/v1/placement/simulate", body: `{"profile":"720p","count":1,"stream":"x"}`, status: 400, field: "stream"},

		{name: "no such worker", method: "GET", path: "/v1/workers/w9", status: 404, says: "w9"},

		{name: "publish without a node", method: "POST", path: "/internal/v1/ingest/publish", body: `{"stream":"taken","key":"x","conn":"1","protocol":"rtmp"}`, status: 422, field: "node"},
		{name: "publish of garbage", method: "POST", path: "/internal/v1/ingest/publish", body: "\x00\xff", status: 400},
		{name: "report of another node", method: "PUT", path: "/internal/v1/ingest/nodes/n1", body: `{"node":"n2","boot":"b"}`, status: 422, field: "node"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			h := *h
			h.t = t
			a := h.do(tc.method, tc.path, tc.body, tc.headers...)
			p := a.problem(tc.status)
			text := p.Detail
			if tc.field != "" {
				found := false
				for _, f := range p.Errors {
					if f.Field == tc.field {
						found, text = true, f.Message
					}
				}
				if !found {
					t.Errorf("errors don't name %q: %s", tc.field, a.body)
				}
			}
			if !strings.Contains(text, tc.says) {
				t.Errorf("%q does not say %q", text, tc.says)
			}
			if len(a.body) > 2000 {
				t.Errorf("the answer has %d bytes", len(a.body))
			}
			if tc.status == 405 && a.header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
	left := decoded[wire.StreamPage](h.do("GET", "/v1/streams", nil).want(http.StatusOK))
	if len(left.Items) != 1 || left.Items[0].Version != 1 {
		t.Errorf("malformed requests changed the streams: %+v", left.Items)
	}
	for _, p := range decoded[wire.ProfilePage](h.do("GET", "/v1/profiles", nil).want(http.StatusOK)).Items {
		if !p.BuiltIn {
			t.Errorf("malformed requests made profile %s", p.Name)
		}
	}
}
