job "hcl1-weak-types" {
  datacenters = "dc1",
  priority = "60"
  all_at_once = 1
  group "web" {
    count = 0x2
    task "main" {
      driver = "raw_exec"
      leader = "t"
      user = 1000
      config { command = "/bin/true" }
      service {
        name = "web"
        tags = "one"
      }
    }
  }
}
