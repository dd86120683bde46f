job "hcl1-assigned-blocks" {
  type = "batch",
  meta = { owner = "a" }
  group "web" {
    restart = { attempts = 1, delay = "5s" }
    task "main" {
      driver = "raw_exec"
      config = {
        command = "/bin/true"
        env_list = ["a"]
      }
      resources = {
        cpu = 50
      }
    }
  }
}
