package dev

import (
	"fmt"
	"net"
	"strconv"
)

// Ports are the loopback ports of a development instance.
type Ports struct {
	API       int `name:"api-port" help:"Management API (TCP)." default:"8080" env:"DIONYSIA_DEV_API_PORT"`
	Router    int `name:"router-port" help:"Router: what viewers use (TCP)." default:"8090" env:"DIONYSIA_DEV_ROUTER_PORT"`
	Origin    int `name:"origin-port" help:"The worker's origin (TCP)." default:"8091" env:"DIONYSIA_DEV_ORIGIN_PORT"`
	Ingest    int `name:"ingest-port" help:"Ingest agent (TCP)." default:"8092" env:"DIONYSIA_DEV_INGEST_PORT"`
	RTMP      int `name:"rtmp-port" help:"RTMP ingest (TCP)." default:"1935" env:"DIONYSIA_DEV_RTMP_PORT"`
	RTSP      int `name:"rtsp-port" help:"RTSP ingest (TCP)." default:"8554" env:"DIONYSIA_DEV_RTSP_PORT"`
	SRT       int `name:"srt-port" help:"SRT ingest (UDP)." default:"8890" env:"DIONYSIA_DEV_SRT_PORT"`
	WHIP      int `name:"whip-port" help:"WHIP ingest (TCP)." default:"8889" env:"DIONYSIA_DEV_WHIP_PORT"`
	ICE       int `name:"ice-port" help:"WebRTC media (UDP)." default:"8189" env:"DIONYSIA_DEV_ICE_PORT"`
	MediaMTX  int `name:"mediamtx-port" help:"mediamtx's control API (TCP)." default:"9997" env:"DIONYSIA_DEV_MEDIAMTX_PORT"`
	Redis     int `name:"redis-port" help:"Redis (TCP)." default:"6379" env:"DIONYSIA_DEV_REDIS_PORT"`
	ConsulUI  int `name:"consul-port" help:"Consul's HTTP API and UI (TCP)." default:"8500" env:"DIONYSIA_DEV_CONSUL_PORT"`
	ConsulDNS int `name:"consul-dns-port" help:"Consul DNS (TCP and UDP)." default:"8600" env:"DIONYSIA_DEV_CONSUL_DNS_PORT"`
	ConsulRPC int `name:"consul-rpc-port" help:"Consul's server RPC (TCP)." default:"8300" env:"DIONYSIA_DEV_CONSUL_RPC_PORT"`
	ConsulLAN int `name:"consul-lan-port" help:"Consul's LAN gossip (TCP and UDP)." default:"8301" env:"DIONYSIA_DEV_CONSUL_LAN_PORT"`
}

type portUse struct {
	what, flag string
	port       int
	tcp, udp   bool
}

func (p Ports) uses() []portUse {
	return []portUse{
		{"the management API", "--api-port", p.API, true, false},
		{"the router", "--router-port", p.Router, true, false},
		{"the origin", "--origin-port", p.Origin, true, false},
		{"the ingest agent", "--ingest-port", p.Ingest, true, false},
		{"RTMP ingest", "--rtmp-port", p.RTMP, true, false},
		{"RTSP ingest", "--rtsp-port", p.RTSP, true, false},
		{"SRT ingest", "--srt-port", p.SRT, false, true},
		{"WHIP ingest", "--whip-port", p.WHIP, true, false},
		{"WebRTC media", "--ice-port", p.ICE, false, true},
		{"mediamtx's API", "--mediamtx-port", p.MediaMTX, true, false},
		{"Redis", "--redis-port", p.Redis, true, false},
		{"Consul's UI", "--consul-port", p.ConsulUI, true, false},
		{"Consul DNS", "--consul-dns-port", p.ConsulDNS, true, true},
		{"Consul's RPC", "--consul-rpc-port", p.ConsulRPC, true, false},
		{"Consul's gossip", "--consul-lan-port", p.ConsulLAN, true, true},
	}
}

// check binds every port once, so that one in use is named, with the flag that
// changes it, before anything is started.
func (p Ports) check() error {
	seen := map[int]string{}
	for _, u := range p.uses() {
		if u.port < 1 || u.port > 65535 {
			return fmt.Errorf("%s %d: a port is 1 to 65535", u.flag, u.port)
		}
		if other, ok := seen[u.port]; ok {
			return fmt.Errorf("port %d is given to both %s and %s: choose another with %s", u.port, other, u.what, u.flag)
		}
		seen[u.port] = u.what
		if u.tcp {
			l, err := net.Listen("tcp", loop(u.port))
			if err != nil {
				return inUse(u, "TCP", err)
			}
			_ = l.Close()
		}
		if u.udp {
			c, err := net.ListenPacket("udp", loop(u.port))
			if err != nil {
				return inUse(u, "UDP", err)
			}
			_ = c.Close()
		}
	}
	return nil
}

func inUse(u portUse, proto string, err error) error {
	return fmt.Errorf("%s port %d, for %s, can't be used (%w): stop what uses it, or choose another with %s",
		proto, u.port, u.what, err, u.flag)
}

func loop(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
