package service_test

// engineRestarts (F103): containerd is restarted as its package does it in an upgrade,
// in the middle of a build, which ends as if nothing had been.
func (m *machine) engineRestarts() {
	m.app("calm", 0)
	push := m.underWay("calm", "calm/1", 25)
	m.run("systemctl", "restart", "containerd.service")
	if err := push.Wait(); err != nil {
		m.Errorf("the push: %v\n%s", err, push.Stderr)
	}
	m.becomes("calm/1", "succeeded")
	m.whole("calm/1", 25)
	m.moved("calm")
}
