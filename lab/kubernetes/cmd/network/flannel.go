package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/iptables"
	"k8s.io/klog/v2"
)

var (
	iface        = flag.String("iface", "", "flanneld: name or address of the interface between the nodes")
	netConfig    = flag.String("net-config-path", "/etc/kube-flannel/net-conf.json", "flanneld: network and backend")
	subnetFile   = flag.String("subnet-file", "/run/flannel/subnet.env", "flanneld: where to write the subnet of this node")
	cniTemplate  = flag.String("cni-conf", "/etc/kube-flannel/cni-conf.json", "flanneld: configuration of the CNI plugins")
	cniTarget    = flag.String("cni-conf-dir", "/host/etc/cni/net.d", "flanneld: where to write it, with subnet and MTU")
	pluginSource = flag.String("cni-bin", "/opt/cni/bin", "flanneld: the CNI plugins")
	pluginTarget = flag.String("cni-bin-dir", "/host/opt/cni/bin", "flanneld: where to copy them")
	resyncEvery  = flag.Int("iptables-resync", 5, "flanneld: seconds between two checks of the iptables rules")
)

// flannel is upstream's main with the backends and the store that a cluster of the lab uses: upstream's own cannot be built,
// because it imports the backends of clouds, and one of their modules cannot be fetched.
func flannel(ctx context.Context) error {
	manager, err := kube.NewSubnetManager(ctx, "", "", "flannel.alpha.coreos.com", *netConfig, true)
	if err != nil {
		return fmt.Errorf("subnet manager: %w", err)
	}
	config, err := manager.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", *netConfig, err)
	}
	family, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return err
	}
	external, err := ipmatch.LookupExtIface(*iface, "", "", family, ipmatch.PublicIPOpts{})
	if err != nil {
		return fmt.Errorf("interface %q: %w", *iface, err)
	}
	network, err := backend.NewManager(ctx, manager, external).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	var tasks sync.WaitGroup
	registered, err := network.RegisterNetwork(ctx, &tasks, config)
	if err != nil {
		return err
	}
	lease := registered.Lease()
	traffic := &iptables.IPTablesManager{}
	if err := traffic.Init(ctx); err != nil {
		return err
	}
	err = traffic.SetupAndEnsureMasqRules(ctx, config.Network, ip.IP4Net{}, ip.IP4Net{}, config.IPv6Network, ip.IP6Net{},
		ip.IP6Net{}, lease, *resyncEvery, false)
	if err != nil {
		return fmt.Errorf("masquerading: %w", err)
	}
	traffic.SetupAndEnsureForwardRules(ctx, config.Network, config.IPv6Network, *resyncEvery)
	err = manager.HandleSubnetFile(*subnetFile, config, true, lease.Subnet, lease.IPv6Subnet, registered.MTU())
	if err != nil {
		return fmt.Errorf("%s: %w", *subnetFile, err)
	}
	if err := installPlugins(lease.Subnet.String(), registered.MTU()); err != nil {
		return fmt.Errorf("CNI plugins: %w", err)
	}
	klog.Infof("this node has subnet %s on %s, MTU %d", lease.Subnet, external.Iface.Name, registered.MTU())
	tasks.Add(1)
	go func() {
		registered.Run(ctx)
		tasks.Done()
	}()
	err = manager.CompleteLease(ctx, lease, &tasks)
	tasks.Wait()
	return err
}

// installPlugins copies the CNI plugins of this image to the node and writes their configuration, as the chart's init
// containers do. It is the last step, because a node is Ready as soon as a configuration is there.
func installPlugins(subnet string, mtu int) error {
	plugins, err := filepath.Glob(filepath.Join(*pluginSource, "*"))
	if err != nil {
		return err
	}
	for _, plugin := range plugins {
		program, err := os.ReadFile(plugin)
		if err != nil {
			return err
		}
		if err := replace(filepath.Join(*pluginTarget, filepath.Base(plugin)), program, 0o755); err != nil {
			return err
		}
	}
	template, err := os.ReadFile(*cniTemplate)
	if err != nil {
		return err
	}
	text := strings.NewReplacer(`"MTU"`, strconv.Itoa(mtu), "SUBNET", subnet).Replace(string(template))
	return replace(filepath.Join(*cniTarget, "10-canal.conflist"), []byte(text), 0o600)
}

func replace(path string, content []byte, mode os.FileMode) error {
	fresh := path + ".new"
	if err := os.WriteFile(fresh, content, mode); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
