package kit

import (
	"fmt"
	"time"
)

// Playable polls until the first segment of every variant of a master playlist,
// and its map, can be fetched, as a player does. It returns the last reason why
// not when limit passes.
func Playable(master string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		err := fetchFirst(master)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not playable after %v: %w", master, limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func fetchFirst(master string) error {
	m, err := FetchMaster(master)
	if err != nil {
		return err
	}
	for _, v := range m.All() {
		media, err := FetchMedia(v.URL)
		if err != nil {
			return err
		}
		if len(media.Segments) == 0 {
			return fmt.Errorf("no segment in %s", v.URL)
		}
		for _, u := range []string{media.Segments[0].Map, media.Segments[0].URL} {
			if _, err := FetchOK(u); err != nil {
				return err
			}
		}
	}
	return nil
}
