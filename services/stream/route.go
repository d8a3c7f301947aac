package stream

// Route is what a router needs to know of a stream. The address of an origin
// is never part of it: that comes from DNS.
type Route struct {
	Stream   string `json:"stream"`
	Disabled bool   `json:"disabled"`
	// Live is true while a placement is placed or ending; Ended is true when
	// the last broadcast is over and its origin still serves the window.
	Live  bool `json:"live"`
	Ended bool `json:"ended"`
	// Epoch and Origin are the current placement's; 0 and "" when there is none.
	Epoch  uint64 `json:"epoch"`
	Origin string `json:"origin"`
	// Given is the highest epoch that was ever given; one that is below what was
	// seen before comes of a state that has gone back in time.
	Given uint64 `json:"given"`
	// Origins maps earlier epochs, back to the window, to their origins.
	Origins map[uint64]string `json:"origins"`
	// HoldBack and Window as in Stream.
	HoldBack Seconds `json:"hold_back_seconds"`
	Window   Seconds `json:"window_seconds"`
}
