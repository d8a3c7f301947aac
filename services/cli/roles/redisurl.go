package roles

import (
	"errors"
	"net/url"
)

// withPassword puts password into a redis:// URL that has none.
func withPassword(raw, password string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "redis" && u.Scheme != "rediss") || u.Host == "" {
		// The URL itself may hold a password: it is not repeated here.
		return "", errors.New("must have the form redis://HOST:PORT/DB")
	}
	if _, has := u.User.Password(); !has && password != "" {
		u.User = url.UserPassword(u.User.Username(), password)
	}
	return u.String(), nil
}
