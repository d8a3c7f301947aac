// Package backup proves tools/backup.sh on a real Redis, Consul and Nomad: what
// was there when a backup was made is there again after it is restored, and
// what came later is gone.
package backup

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/e2e/kit"
	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// script runs tools/backup.sh with more in its environment.
func script(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(kit.RepoRoot(), "tools", "backup.sh"), args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, env []string, args ...string) {
	t.Helper()
	out, err := script(t, env, args...)
	if err != nil {
		t.Fatalf("backup.sh %v: %v\n%s", args, err, out)
	}
	t.Log(strings.TrimSpace(out))
}

func TestRedis(t *testing.T) {
	server := testkit.NewRedis(t)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(server.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"REDIS_ADDR=" + server.Addr, "REDIS_PASSWORD_FILE=" + password}
	client := redis.NewClient(&redis.Options{Addr: server.Addr, Password: server.Password})
	t.Cleanup(func() { _ = client.Close() })
	for i := range 1000 {
		if err := client.Set(t.Context(), fmt.Sprintf("before:%d", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}

	file := filepath.Join(t.TempDir(), "redis.tar")
	must(t, env, "save", "redis", file)
	settings, err := client.ConfigGet(t.Context(), "auto-aof-rewrite-percentage").Result()
	if err != nil || settings["auto-aof-rewrite-percentage"] != "100" {
		t.Errorf("after a save Redis rewrites at %v: %v", settings, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup can be read by others: %v, %v", info, err)
	}
	dir, err := client.ConfigGet(t.Context(), "dir").Result()
	if err != nil {
		t.Fatal(err)
	}
	env = append(env, "REDIS_DIR="+dir["dir"])
	if err := client.Do(t.Context(), "FLUSHALL").Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(t.Context(), "after", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}

	if out, err := script(t, env, "restore", "redis", file); err == nil || !strings.Contains(out, "stop it first") {
		t.Errorf("a restore under a running Redis was not refused: %v\n%s", err, out)
	}
	server.Kill()
	must(t, env, "restore", "redis", file)
	server.Restart()
	if n, err := client.DBSize(t.Context()).Result(); err != nil || n != 1000 {
		t.Errorf("%d keys after the restore, want 1000: %v", n, err)
	}
	if value, err := client.Get(t.Context(), "before:999").Result(); err != nil || value != "999" {
		t.Errorf("before:999 is %q after the restore: %v", value, err)
	}
}

func TestConsul(t *testing.T) {
	consul := testkit.StartConsul(t, time.Second)
	env := []string{"CONSUL_HTTP_ADDR=" + consul.HTTPAddr}
	kv := "http://" + consul.HTTPAddr + "/v1/kv/"
	ask(t, http.MethodPut, kv+"before", "kept")
	file := filepath.Join(t.TempDir(), "consul.snap")
	must(t, env, "save", "consul", file)
	if out, err := script(t, env, "save", "consul", file); err == nil {
		t.Errorf("a second save wrote over the first:\n%s", out)
	}
	ask(t, http.MethodDelete, kv+"before", "")
	ask(t, http.MethodPut, kv+"after", "lost")

	spoilt := filepath.Join(t.TempDir(), "spoilt.snap")
	copyFile(t, file, spoilt)
	copyFile(t, file+".sha256", spoilt+".sha256")
	for _, path := range []string{spoilt, file + ".not-there"} {
		if out, err := script(t, env, "restore", "consul", path); err == nil {
			t.Errorf("%s was restored:\n%s", path, out)
		}
	}
	must(t, env, "restore", "consul", file)
	if status, body := ask(t, http.MethodGet, kv+"before?raw", ""); status != http.StatusOK || body != "kept" {
		t.Errorf("before is %d %q after the restore", status, body)
	}
	if status, body := ask(t, http.MethodGet, kv+"after?raw", ""); status != http.StatusNotFound {
		t.Errorf("after is %d %q after the restore, want 404", status, body)
	}
}

// TestNomad restores onto a server that is new: the variables must be readable
// there, so their key must have come along.
func TestNomad(t *testing.T) {
	former, later := startNomad(t), startNomad(t)
	if status, body := ask(t, http.MethodPut, "http://"+former+"/v1/var/before", `{"Path":"before","Items":{"key":"kept"}}`); status != http.StatusOK {
		t.Fatalf("putting a variable: %d %s", status, body)
	}
	file := filepath.Join(t.TempDir(), "nomad.snap")
	must(t, []string{"NOMAD_ADDR=http://" + former}, "save", "nomad", file)
	must(t, []string{"NOMAD_ADDR=http://" + later}, "restore", "nomad", file)
	kit.Eventually(t, 30*time.Second, "the variable is on the new server", func() error {
		status, body := ask(t, http.MethodGet, "http://"+later+"/v1/var/before", "")
		if status != http.StatusOK || !strings.Contains(body, "kept") {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}

// startNomad starts one Nomad server, without a client, and waits until it leads.
func startNomad(t *testing.T) (address string) {
	t.Helper()
	ports := testkit.FreePorts(t, 3)
	config, err := json.Marshal(map[string]any{
		"bind_addr": "127.0.0.1", "data_dir": t.TempDir(),
		"advertise": map[string]string{"http": "127.0.0.1", "rpc": "127.0.0.1", "serf": "127.0.0.1"}, "disable_update_check": true, "log_level": "WARN",
		"ports":              map[string]int{"http": ports[0], "rpc": ports[1], "serf": ports[2]},
		"server":             map[string]any{"enabled": true, "bootstrap_expect": 1},
		"consul":             map[string]any{"auto_advertise": false, "server_auto_join": false, "client_auto_join": false},
		"leave_on_interrupt": false,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "nomad.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.StartProcess(t, "nomad", exec.Command(testkit.Part(t, "DIONYSIA_NOMAD", "nomad"), "agent", "-config="+file))
	address = fmt.Sprintf("127.0.0.1:%d", ports[0])
	kit.Eventually(t, 60*time.Second, "Nomad takes variables", func() error {
		request, err := http.NewRequest(http.MethodPut, "http://"+address+"/v1/var/ready", strings.NewReader(`{"Path":"ready","Items":{"a":"b"}}`))
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", response.StatusCode)
		}
		return nil
	})
	return address
}

func ask(t *testing.T, method, url, body string) (status int, answer string) {
	t.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// copyFile copies a backup with its last byte changed, and anything else as it is.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(from, ".sha256") {
		content = []byte(strings.ReplaceAll(string(content), filepath.Base(from[:len(from)-7]), filepath.Base(to[:len(to)-7])))
	} else {
		content[len(content)-1] ^= 1
	}
	if err := os.WriteFile(to, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
