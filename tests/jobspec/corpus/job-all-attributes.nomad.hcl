job "job-all-attributes" {
  type         = "batch"
  priority     = 70
  all_at_once  = true
  datacenters  = ["dc1", "prod-*"]
  node_pool    = "large"
  consul_token = "c-token"
  vault_token  = "v-token"

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
