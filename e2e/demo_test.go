package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// One command shows a picture: the demo stream is a ladder, and the product's
// own page plays it in a browser.
func TestDemo(t *testing.T) {
	realTime(t)
	d := kit.StartDev(t, kit.DevOptions{Demo: true})
	kit.Eventually(t, goesLive, "the demo's ladder", func() error {
		resp, err := http.Get(d.Master("demo"))
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if n := strings.Count(string(b), "#EXT-X-STREAM-INF"); err != nil || resp.StatusCode != http.StatusOK || n < 2 {
			return fmt.Errorf("%s, %d rungs, %w", resp.Status, n, err)
		}
		return nil
	})
	profile := t.TempDir()
	kit.Start(t, "chromium", []string{kit.Chromium(t), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
		"--mute-audio", "--user-data-dir=" + profile, "--remote-debugging-port=0", d.Router + "/watch/demo"}, kit.WithEnv("HOME="+profile))
	// The page's title says what it does, and Chromium lists the titles.
	kit.Eventually(t, goesLive, "the page saying that it plays", func() error {
		port, err := os.ReadFile(filepath.Join(profile, "DevToolsActivePort"))
		if err != nil {
			return err
		}
		number, _, _ := strings.Cut(string(port), "\n")
		resp, err := http.Get("http://127.0.0.1:" + number + "/json/list")
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil || !strings.Contains(string(b), "playing – demo") {
			return fmt.Errorf("Chromium lists %s, %w", b, err)
		}
		return nil
	})
}
