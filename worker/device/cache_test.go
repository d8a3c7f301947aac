package device

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/go-hclog"
)

func TestCache(t *testing.T) {
	var log bytes.Buffer
	c := cache{dir: filepath.Join(t.TempDir(), "new"), log: hclog.New(&hclog.LoggerOptions{Output: &log})}
	k := key{Device: "gpu-1", Hardware: "NVIDIA L4", Driver: "570.86", GPAC: "2.4"}
	opts := []cmp.Option{cmp.AllowUnexported(record{}, key{}), cmpopts.EquateEmpty()}
	if got := c.load(k); !cmp.Equal(got, record{Version: cacheVersion, key: k}, opts...) || log.Len() > 0 {
		t.Fatalf("nothing kept: %+v, %s", got, &log)
	}
	r := record{Version: cacheVersion, key: k, PxPerS: 7, MeasuredAt: time.Unix(9, 0).UTC(),
		SelfTest: map[string]proof{"h264": {OK: true, At: time.Unix(8, 0).UTC()}, "av1": {Detail: "no", At: time.Unix(8, 0).UTC()}}}
	if err := c.save(r); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, c.load(k), opts...); diff != "" {
		t.Error(diff)
	}
	if all, _ := os.ReadDir(c.dir); len(all) != 1 {
		t.Errorf("left beside it: %v", all)
	}
	good, err := os.ReadFile(c.file("gpu-1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []key{{"gpu-1", "NVIDIA L40", "570.86", "2.4"}, {"gpu-1", "NVIDIA L4", "580.1", "2.4"}, {"gpu-1", "NVIDIA L4", "570.86", "2.5"}} {
		if got := c.load(other); got.PxPerS != 0 || got.SelfTest != nil || got.key != other {
			t.Errorf("for %+v: %+v", other, got)
		}
	}
	for name, content := range map[string]string{
		"empty": "", "cut short": string(good[:len(good)/2]), "not JSON": "hello", "another thing's": `{"some":"thing"}`,
		"another device's": strings.Replace(string(good), "gpu-1", "gpu-2", 1),
		"of a later time":  strings.Replace(string(good), `"version": 2`, `"version": 3`, 1),
	} {
		log.Reset()
		if err := os.WriteFile(c.file("gpu-1"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := c.load(k); got.PxPerS != 0 || got.SelfTest != nil || !strings.Contains(log.String(), "a kept result is ignored") {
			t.Errorf("%s: %+v, %s", name, got, &log)
		}
	}
	// A folder where the file should be: not kept, and nothing is lost.
	if err := os.Remove(c.file("gpu-1")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(c.file("gpu-1"), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.save(r); err == nil {
		t.Error("it was kept in a folder")
	}
}
